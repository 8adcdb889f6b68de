import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config import OF_OPTIMIZER, StudyConfig
from study.config_file import load, validate
from study.errors import UserError
from tests import config_reference

SHIPPED = sorted(Path("configs").glob("*.yaml")) + sorted(Path("configs/recipes").glob("*.yaml"))
MINIMAL = {"name": "x", "models": ["mlp"], "learning_rates": [0.1], "seeds": 1}


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_configs_that_ship_are_valid(file):
    config = load(file)
    assert config.name == file.stem
    assert validate(json.loads(config.model_dump_json()), "again") == config


def test_every_key_is_in_the_readme_as_the_schema_has_it():
    text = config_reference.README.read_text()
    assert config_reference.readme(text) == text, "python -m tests.config_reference makes it anew"


def test_every_config_is_in_the_readme():
    text = config_reference.README.read_text()
    for file in SHIPPED:
        assert f"`{file.name}`" in text or f"`{file.parent.name}/`" in text


def test_the_paper_study_is_the_one_described():
    paper = load("configs/paper.yaml")
    assert paper.models == ("lenet5", "mlp", "mlp_matched")
    assert paper.learning_rates == (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    assert (paper.seeds, paper.training.epochs) == (20, 10)


MISTAKES = [
    ("trainin={epochs: 2}", "trainin: unknown key (did you mean training?); allowed: name, dataset"),
    ("training.epoch=2", "training.epoch: unknown key (did you mean epochs?); allowed: epochs, batch_size, optimizer"),
    ("training.epochs=-1", "training.epochs: found -1; allowed: a whole number from 1 to 100,000"),
    ("training.epochs=two", "training.epochs: found 'two'; allowed: a whole number"),
    ("training.epochs=2.5", "training.epochs: found 2.5; allowed: a whole number"),
    ("training.momentum=1", "training.momentum: found 1; allowed: a number from 0, below 1"),
    ("learning_rates=[]", "learning_rates: found []; allowed: a list of numbers above 0"),
    ("learning_rates=[0.1, -1]", "learning_rates.1: found -1; allowed: a list of numbers above 0"),
    ("learning_rates=[.inf]", "learning_rates.0: found inf; allowed: a list of numbers above 0"),
    ("learning_rates={log_uniform: [1, 0.1], count: 2}", "allowed: log_uniform: two limits, the smaller first"),
    ("models=[mlp, mlp]", "models: found ['mlp', 'mlp']; allowed: each value once (mlp is there twice)"),
    ("models=[../x]", "models.0: found '../x'; allowed: a list of built-in models"),
    ("name=a/b", "name: found 'a/b'; allowed: 1 to 80 letters"),
    ("name=..", "name: found '..'; allowed: 1 to 80 letters"),
    ("name=a..b", "name: found 'a..b'; allowed: a name without '..'"),
    ("seeds=0", "seeds: found 0; allowed: a count above 0"),
    ("seeds=true", "seeds: found True; allowed: a count above 0"),
    ("seeds={int: 2}", "seeds.int: unknown key (did you mean init?); allowed: init, order, split"),
    ("seeds=[1, 1]", "seeds: found [1, 1]; allowed: each value once (1 is there twice)"),
    ("launch.pack=all", "launch.pack: found 'all'; allowed: learning_rates, auto, or a number of members"),
    ("wandb.mode=of", "wandb.mode: found 'of'; allowed: auto, online, offline or disabled"),
    ("wandb.api_key=secret", "wandb.api_key: unknown key"),
    ("analysis.candidate=foo", "analysis.candidate: found 'foo'; allowed: one of models: lenet5, mlp, mlp_matched"),
    ("analysis.baselines=[lenet5]", "analysis.baselines: found ['lenet5']; allowed: models other than the candidate"),
    ("storage=${oc.env:HOME}", "found '${'; allowed: plain values, no interpolation"),
    ("training=5", "training: found 5; allowed: key: value pairs"),
    ("training={null: 3}", "found a key that is neither a word nor a number; allowed: words"),
    ("training={epochs: 1, epochs: 2}", "line 1: found duplicate key epochs; allowed: each key once"),
    ("seeds.init=2", "seeds.init: found a value at seeds, which has no keys; allowed: seeds=…"),
    ("storage=''", "storage: found ''; allowed: text"),
    ("wandb.entity=a b", "wandb.entity: found 'a b'; allowed: 1 to 80 letters, digits, '.', '_' or '-'"),
    (
        f"models=['nets:{'long' * 23}']",
        "allowed: a list of built-in models (see `python -m study models`), import paths",
    ),
    ("learning_rates={log_uniform: [1], count: 2}", "learning_rates.log_uniform: found [1]; allowed: two numbers"),
    (
        "learning_rates={log_uniform: [0.1, 0.1001], count: 300}",
        "allowed: wider limits, or a count of at most 2: no more rates of four digits were drawn",
    ),
    (
        "seeds={init: 1000, order: 1000, split: 1000}",
        "seeds: found '3 × 3 × 1,000,000,000 runs'; allowed: at most 1,000,000 (models × learning rates × seeds)",
    ),
    ("name=off", "; YAML took it for a truth value, in quotes it is text: 'name=\"…\"' in a shell"),
    ("name=1e5", "found 100000.0; allowed: 1 to 80 letters, digits, '.', '_' or '-', beginning with a letter or dig"),
    ("dataset=20241125", "or {name: …, pad: 2, channels: 3, normalise: true}; YAML took it for a number, in quotes it"),
    ("models=[lenet5, mpl]", "models.1: found 'mpl', which is no model (did you mean mlp?); allowed: lenet5, mlp, mlp"),
    (
        "models=[nets.Net]",
        "found 'nets.Net', which is no model; allowed: lenet5, mlp, mlp_matched, or an import path such as nets:Net",
    ),
    ("models=[{name: a, model: mpl}]", "models.0.model: found 'mpl', which is no model (did you mean mlp?); allowed"),
    ("models=[{name: a}]", "models.0.model: found nothing; allowed: this key is required"),
    ("models=[{name: a, model: mlp, argument: 3}]", "models.0.argument: unknown key (did you mean arguments?); allow"),
    ("models=[{name: a, model: mlp, output: -1}]", "models.0.output: found -1; allowed: a position, or a key"),
    ("models=[{name: a, model: mlp, input: row}]", "models.0.input: found 'row'; allowed: flat or rows, or null"),
    ("models=[{name: a b, model: mlp}]", "models.0.name: found 'a b'; allowed: 1 to 80 letters, digits, '.', '_'"),
    ("models=[{name: a, model: mlp}, {name: a, model: lenet5}]", "each value once (a is there twice)"),
    ("models=[{name: lenet5, model: mlp}]", "models: found 'lenet5'; allowed: a name of its own: this one is a bui"),
    ("models=[{name: a, model: mlp, arguments: {x: .inf}}]", "models.0.arguments: found {'x': inf}; allowed: finite"),
    ("dataset={name: mnist, pads: 2}", "dataset.pads: unknown key (did you mean pad?); allowed: name, pad, channels"),
    ("dataset.channels=2", "dataset.channels: found 2; allowed: 1 or 3"),
    ("training.optimizer=adan", "training.optimizer: found 'adan'; allowed: sgd, adam, adamw or rmsprop"),
    ("training.betas=[0.9, 0.99]", "training.betas: found [0.9, 0.99]; allowed: null, since sgd has none, or optimi"),
    ("training.betas=[0.9]", "training.betas: found [0.9]; allowed: 2 values, each a number from 0, below 1"),
    (
        "training.step_factor=0.5",
        "training.step_factor: found 0.5; allowed: null, since constant has none, or schedule: step",
    ),
    ("training={nesterov: true, momentum: 0}", "training.nesterov: found True; allowed: false, or a momentum above"),
    ("training.warmup_epochs=2", "training.warmup_epochs: found 2.0; allowed: fewer than the 2 epochs"),
    ("analysis.confidence=0.4", "analysis.confidence: found 0.4; allowed: a number above 0.5, below 1"),
    ("analysis.baselines=mlp", "analysis.baselines: found 'mlp'; allowed: a list of models other than the candidate"),
    ("analysis.baselines=[]", "analysis.baselines: found []; allowed: a list of models other than the candidate"),
    ("analysis.references={mlq: []}", "analysis.references: found 'mlq'; allowed: one of models: lenet5, mlp, mlp_"),
    ("analysis.references={mlp: 1}", "analysis.references.mlp: found 1; allowed: model: a list of {source: text"),
    ("analysis.expected={a b: [0.1, 0.2]}", "analysis.expected: found 'a b'; allowed: one of models: lenet5, mlp, ml"),
    ("analysis.expected={mlp: [0.9]}", "analysis.expected.mlp: found [0.9]; allowed: model: [low, high], two accur"),
    ("analysis.expected={mlp: [0.99, 0.9]}", "analysis.expected.mlp: found [0.99, 0.9]; allowed: two accuracies, the"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_key_found_and_allowed(override, message):
    with pytest.raises(UserError) as error:
        load("configs/quick.yaml", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(("configs/quick.yaml: ", f"{override!r}: "))
    assert not re.search(r"pattern|array|object|valid (string|integer|number)|<", str(error.value))


def test_mistakes_of_two_keys_together():
    with pytest.raises(UserError, match=r"^'seeds=2': found seeds for the second time; allowed: once$"):
        load("configs/quick.yaml", ["seeds=1", "training.epochs=1", "seeds=2"])
    with pytest.raises(UserError, match=r"training\.split_seed: found 1; allowed: 0, since seeds: {split: n} sets"):
        load("configs/quick.yaml", ["seeds={init: 2, order: 2}", "training.split_seed=1"])


def test_what_is_said_of_models_that_an_override_leaves_out_is_dropped_and_that_is_said():
    told = []
    config = load(
        "configs/paper.yaml", ["models=[lenet5, {name: wide, model: mlp, arguments: {hidden: [900]}}]"], told.append
    )
    assert list(config.named_models()) == ["lenet5", "wide"]
    assert config.analysis.baselines is None
    assert set(config.analysis.references) == set(config.analysis.expected) == {"lenet5"}
    assert told == [
        "configs/paper.yaml: models=… leaves out what these speak of, so it is dropped: "
        "analysis.baselines: mlp, mlp_matched; analysis.references: mlp, mlp_matched"
    ]
    assert load("configs/paper.yaml", ["models=[mlp, mlp_matched]"]).analysis.baselines == ("mlp_matched",)
    with pytest.raises(UserError, match=r"analysis\.baselines: found 'mlp'; allowed: one of models: lenet5$"):
        load("configs/paper.yaml", ["models=[lenet5]", "analysis.baselines=[mlp]"])


def test_parameters_of_an_optimiser_that_an_override_replaces_are_dropped_and_that_is_said():
    told = []
    training = load(
        "configs/paper.yaml", ["training.optimizer=adam", "training.betas=[0.8, 0.99]"], told.append
    ).training
    assert (training.momentum, training.nesterov, training.betas, training.eps) == (None, None, (0.8, 0.99), 1e-8)
    assert told == ["configs/paper.yaml: training.momentum: 0.9 is dropped, since adam has none"]
    with pytest.raises(
        UserError, match=r"training\.momentum: found 0\.5; allowed: null, since adam has none, or optim"
    ):
        load("configs/paper.yaml", ["training.optimizer=adam", "training.momentum=0.5"])


def test_an_optimiser_without_parameters_has_those_of_pytorch():
    defaults = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    for name, kind in defaults.items():
        training = load("configs/smoke.yaml", [f"training.optimizer={name}"]).training
        theirs = kind([torch.zeros(1)]).defaults
        for key in OF_OPTIMIZER:
            assert getattr(training, key) == (theirs[key] if name in OF_OPTIMIZER[key] else None)
    plain = load("configs/smoke.yaml").training
    assert (plain.momentum, plain.nesterov, plain.weight_decay, plain.betas) == (0.9, False, 0.0, None)


def test_home_is_where_the_user_is_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = load("configs/quick.yaml", ["storage=~/results", "dataset=~/digits"])
    assert (config.storage, config.dataset) == ("/home/me/results", "/home/me/digits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "not valid YAML: line 2: found duplicate key name; allowed: each key once"),
        ("name: [\n", "not valid YAML: line 2: "),
        ("just words\n", "just words: unknown key"),
        ("", "found no keys"),
        ("- a\n- b\n", "found no keys"),
        ("a: &x [1]\nb: *x\n", "found an alias"),
        ("name: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("models: [mlp]\nlearning_rates: [0.1]\nseeds: 1\n", "name: found nothing; allowed: this key is required"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)) as error:
        load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_on_the_command_line_exits_2_without_a_traceback():
    command = [sys.executable, "-m", "study", "plan", "configs/quick.yaml", "training.epoch=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: configs/quick.yaml: training.epoch: unknown key")
    assert done.stdout == ""


def test_numbers_read_as_people_write_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nmodels: [mlp]\nlearning_rates: [1e-3, 3E-2, .5]\nseeds: [3, 1]\n")
    config = load(path)
    assert config.learning_rates == (0.001, 0.03, 0.5)
    assert config.seeds == (3, 1)


def test_random_search_is_seeded_and_inside_its_limits():
    search = {"log_uniform": [0.001, 0.3], "count": 16, "seed": 0}
    grids = [validate(MINIMAL | {"learning_rates": search | {"seed": s}}, "x").learning_rate_grid() for s in (0, 0, 1)]
    assert grids[0] == grids[1] != grids[2]
    # A change here orphans the records of every random search.
    assert grids[0][:4] == (0.08448, 0.06746, 0.006511, 0.002637)
    assert len(grids[0]) == 16
    assert all(0.001 <= rate <= 0.3 for rate in grids[0])


def test_random_search_gives_as_many_rates_as_asked_and_keeps_those_it_has():
    """Among 300 rates of four digits some are drawn twice."""

    def grid(count):
        search = {"log_uniform": [0.001, 0.3], "count": count}
        return validate(MINIMAL | {"learning_rates": search}, "x").learning_rate_grid()

    assert len(set(grid(300))) == 300
    assert grid(300)[:16] == grid(16)


def test_analysis_hash_moves_with_the_analysis_block_alone():
    def sha(*overrides):
        return load("configs/quick.yaml", overrides).analysis_sha256()

    assert sha("seeds=9", "storage=elsewhere") == sha()
    assert sha("analysis.margin=0.002") != sha()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("configs") / "c.yaml"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3))
KEYS = [*StudyConfig.model_fields, "training.epochs", "launch.pack", "analysis.references", "wandb.mode"]

COUNTS = st.integers(1, 1000)
SEEDS = st.integers(0, 2**63 - 1)
RATES = st.floats(0, exclude_min=True, allow_infinity=False)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", fullmatch=True)
WORDS = st.text("ab: {},#'\"é", max_size=20)
PATHS = st.text("abc/. é", min_size=1, max_size=20)
VALID = {
    "name": NAMES,
    "dataset": PATHS,
    "models": st.lists(st.sampled_from(["lenet5", "mlp_matched", "a.b:C", "d:E"]), unique=True).map(
        lambda m: [*m, "mlp"]
    ),
    "learning_rates": st.lists(RATES, min_size=1, max_size=4, unique=True)
    | st.fixed_dictionaries(
        {"log_uniform": st.just([0.001, 0.3]), "count": st.integers(1, 9)}, optional={"seed": SEEDS}
    ),
    "seeds": COUNTS
    | st.lists(SEEDS, min_size=1, max_size=4, unique=True)
    | st.fixed_dictionaries({"init": st.integers(1, 9), "order": st.integers(1, 9)}),
    "training.epochs": COUNTS,
    "training.batch_size": COUNTS,
    "training.momentum": st.floats(0, 1, exclude_max=True),
    "training.schedule": st.sampled_from(["constant", "cosine", "step", "linear"]),
    "training.label_smoothing": st.floats(0, 1, exclude_max=True),
    "training.gradient_clip": RATES | st.none(),
    "training.weight_decay": st.floats(0, allow_infinity=False),
    "training.validation_size": COUNTS,
    "launch.cpus_per_trial": COUNTS,
    "launch.gpus_per_trial": st.floats(0, 1) | st.integers(0, 64),
    "launch.pack": COUNTS | st.sampled_from(["learning_rates", "auto"]),
    "launch.workers": COUNTS | st.none(),
    "launch.max_failures": COUNTS,
    "launch.checkpoint_seconds": st.floats(0, allow_infinity=False),
    "wandb.mode": st.sampled_from(["auto", "online", "offline", "disabled"]),
    "wandb.project": NAMES,
    "wandb.entity": NAMES | st.none(),
    "storage": PATHS,
    "analysis.candidate": st.just("mlp"),
    "analysis.confidence": st.floats(0.5, 1, exclude_min=True, exclude_max=True),
    "analysis.margin": SHARES,
    "analysis.resamples": st.integers(100, 1_000_000),
    "analysis.seed": SEEDS,
    "analysis.expected": st.tuples(SHARES, SHARES).map(lambda pair: {"mlp": sorted(pair)}),
    "analysis.references": st.fixed_dictionaries(
        {"source": WORDS, "accuracy": st.floats(0, 1)}, optional={"note": WORDS}
    ).map(lambda reference: {"mlp": [reference]}),
}
"""Dotted key → values that it may hold, whatever the others do."""


def nested(flat):
    """Dotted keys as the tree of a config."""
    tree = {}
    for key, value in flat.items():
        *blocks, last = key.split(".")
        node = tree
        for block in blocks:
            node = node.setdefault(block, {})
        node[last] = value
    return tree


def assert_holds(resolved, given_):
    """Whatever was given is in the resolved config, to the last leaf."""
    if isinstance(given_, dict):
        assert set(given_) <= set(resolved), "a key was ignored"
        for key, value in given_.items():
            assert_holds(resolved[key], value)
    elif isinstance(given_, list):
        assert len(given_) == len(resolved)
        for one, other in zip(resolved, given_, strict=True):
            assert_holds(one, other)
    else:
        assert resolved == given_, "a value was changed in silence"


@pytest.mark.slow
@settings(max_examples=3000)
@given(
    valid=st.fixed_dictionaries({}, optional=VALID),
    junk=st.dictionaries(st.sampled_from(list(StudyConfig.model_fields)) | st.text(max_size=8), TREES, max_size=2),
)
def test_any_tree_is_a_config_or_one_line(valid, junk):
    tree = MINIMAL | nested(valid) | junk
    try:
        config = validate(tree, "generated")
    except UserError as error:
        message = str(error)
        assert junk, message
        assert "\n" not in message
        assert message.startswith("generated: ")
    else:
        assert_holds(config.resolved(), tree)


@pytest.mark.slow
@settings(max_examples=1500)
@given(data=st.data(), key=st.sampled_from(sorted(VALID)))
def test_every_valid_override_is_applied(scratch, data, key):
    scratch.write_text(yaml.safe_dump(MINIMAL))
    value = data.draw(VALID[key])
    config = load(scratch, [f"{key}={json.dumps(value)}"])
    assert_holds(config.resolved(), nested({key: value}))


@pytest.mark.slow
@settings(max_examples=1500)
@given(key=st.sampled_from(KEYS) | st.text(max_size=20), value=st.text(max_size=30))
def test_any_override_is_known_or_one_line(scratch, key, value):
    scratch.write_text(yaml.safe_dump(MINIMAL))
    try:
        config = load(scratch, [f"{key}={value}"])
    except UserError as error:
        message = str(error)
        assert "\n" not in message
    else:
        block = config
        for part in key.split("=")[0].split("."):
            block = getattr(block, part)


def test_many_seeds_are_not_compared_one_by_one():
    compared = []

    class Seed(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            compared.append(other)
            return int(self) == int(other)

    seeds = tuple(map(Seed, range(1000)))
    assert StudyConfig._unique(seeds) == seeds
    assert len(compared) < 5 * len(seeds)


@pytest.mark.slow
@settings(max_examples=3000)
@given(data=st.data())
def test_any_file_is_a_config_or_one_line(scratch, data):
    source = data.draw(
        st.binary(max_size=200)
        | st.text(max_size=200).map(str.encode)
        | TREES.map(lambda t: yaml.safe_dump(t).encode("utf-8", "surrogatepass"))
        | st.tuples(
            st.sampled_from(["{", "- ", "&a ", "*a", "!!str ", ": ", "? ", "'", "name: x\n"]), st.text(max_size=40)
        ).map(lambda p: (p[0] * 5 + p[1]).encode("utf-8", "surrogatepass"))
    )
    scratch.write_bytes(source)
    with pytest.raises(UserError) as error:
        load(scratch)
    assert "\n" not in str(error.value)
