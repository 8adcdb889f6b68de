# `make` and `make help` list what there is. Every target makes the environment it needs.
CONFIG  ?= configs/quick.yaml
STORAGE ?=
LEDGER  ?=
CLUSTERS ?=
JOBS    ?= 2
PYTHON  ?= python3
BIN     := .venv/bin
# What a user names reaches its command whole, whatever a shell would make of its spaces, & or ?.
quoted   = $(if $(1),'$(subst ','\'',$(1))')
STUDY    = $(CONFIG) $(if $(STORAGE),storage=$(call quoted,$(STORAGE)))

.PHONY: help study paper test fast lint bench calibration published clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make study CONFIG=configs/paper.yaml STORAGE=/elsewhere    another study, kept in another place'
	@echo '  make paper LEDGER=results/mine                             of a study that is trained already'
	@echo '  make study PYTHON=python3.12                               another Python, 3.11 or newer'

study: .venv/ready ## Train the quick study on MNIST and write its report: minutes on two cores
	$(BIN)/python -m study run $(STUDY) --report

# A study that is trained already, or an archive, is named by LEDGER; nothing is trained then.
paper: .venv/ready ## The same, and the draft of a paper: LaTeX, and its PDF where LaTeX is installed
	$(if $(LEDGER),,$(BIN)/python -m study run $(STUDY))
	$(BIN)/python -m analysis $(or $(call quoted,$(LEDGER)),"$$($(BIN)/python -m study where $(STUDY))") --paper

# The tests of a file stay together and share what they had to train or start; JOBS=3 is a little faster on two cores.
test: .venv/ready lint ## Lint, and run all tests: half an hour on two cores
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

fast: .venv/ready ## The tests for daily work: two to three minutes on two cores
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow"

lint: .venv/ready ## Style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready ## Measure speed and memory (tests/benchmarks): half an hour
	$(BIN)/python -m tests.benchmarks

calibration: .venv/ready ## Simulate how often the intervals and tests keep their promise: about half an hour on two cores
	$(BIN)/python -m analysis.calibration --processes 2 --date "$$(date -u +%F)" --out analysis/published/calibration \
		--ledger $(or $(call quoted,$(LEDGER)),analysis/published/paper/paper.zip)

published: .venv/ready ## Make the reports, papers and links of analysis/published anew: a minute a study
	$(BIN)/python -m analysis published analysis/published $(if $(CLUSTERS),--clusters $(call quoted,$(CLUSTERS)))

# The environment is made anew whenever what it should hold has changed.
.venv/ready: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %s: make PYTHON=python3.12" % sys.version.split()[0])'
	@echo "1/2 Making .venv"
	@$(PYTHON) -m venv .venv
	@echo "2/2 Installing into .venv: $$(grep -c == constraints.txt) packages, of which torch is by far the largest"
	@$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[study,test]'
	@touch $@

clean: ## Remove .venv and everything that tools leave behind; results stay
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
