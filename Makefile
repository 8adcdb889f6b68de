# make study: set up, train the quick study on MNIST, write its report.   make test: set up, pass all tests.
#   make study CONFIG=configs/paper.yaml STORAGE=/elsewhere
CONFIG  ?= configs/quick.yaml
LEDGER  ?= analysis/published/paper/paper.zip
PYTHON  ?= python3
BIN     := .venv/bin
STUDY    = $(CONFIG) $(if $(STORAGE),storage=$(STORAGE))

.PHONY: study test fast lint bench calibration clean

# Runs that failed (exit 1) leave a report of the others to be made.
study: .venv/ready
	code=0; $(BIN)/python -m study run $(STUDY) || code=$$?; \
	[ $$code -gt 1 ] || $(BIN)/python -m analysis "$$($(BIN)/python -m study where $(STUDY))" || exit; \
	exit $$code

test: .venv/ready lint
	$(BIN)/python -m pytest

fast: .venv/ready
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m tests.benchmarks

calibration: .venv/ready
	$(BIN)/python -m analysis.calibration --processes 2 --date "$$(date -u +%F)" --out analysis/published/calibration \
		--ledger $(LEDGER)

# The environment is made anew whenever what it should hold has changed.
.venv/ready: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %s: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[study,test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
