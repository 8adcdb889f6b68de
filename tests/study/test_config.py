import json
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config import StudyConfig
from study.config_file import load, validate
from study.errors import UserError

MINIMAL = {"name": "x", "models": ["mlp"], "learning_rates": [0.1], "seeds": 1}


@pytest.mark.parametrize("file", ["smoke", "quick", "paper", "variance"])
def test_configs_that_ship_are_valid(file):
    config = load(f"configs/{file}.yaml")
    assert config.name == file
    assert validate(json.loads(config.model_dump_json()), "again") == config


def test_the_paper_study_is_the_one_described():
    paper = load("configs/paper.yaml")
    assert paper.models == ("lenet5", "mlp", "mlp_matched")
    assert paper.learning_rates == (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    assert (paper.seeds, paper.training.epochs) == (20, 10)


MISTAKES = [
    ("trainin={epochs: 2}", "trainin: unknown key (did you mean training?); allowed: name, dataset"),
    ("training.epoch=2", "training.epoch: unknown key (did you mean epochs?); allowed: epochs, batch_size"),
    ("training.epochs=-1", "training.epochs: found -1; allowed: greater than or equal to 1"),
    ("training.epochs=two", "training.epochs: found 'two'; allowed: a whole number"),
    ("training.epochs=2.5", "training.epochs: found 2.5; allowed: a whole number"),
    ("training.momentum=1", "training.momentum: found 1; allowed: less than 1"),
    ("learning_rates=[]", "learning_rates: found []; allowed: a list of numbers above 0"),
    ("learning_rates=[0.1, -1]", "learning_rates.1: found -1; allowed: a list of numbers above 0"),
    ("learning_rates=[.inf]", "learning_rates.0: found inf; allowed: a list of numbers above 0"),
    ("learning_rates={log_uniform: [1, 0.1], count: 2}", "allowed: log_uniform: two limits, the smaller first"),
    ("models=[mlp, mlp]", "models: found ['mlp', 'mlp']; allowed: each value once (mlp is there twice)"),
    ("models=[../x]", "models.0: found '../x'; allowed: a list of model names"),
    ("name=a/b", "name: found 'a/b'; allowed: 1 to 80 letters"),
    ("name=..", "name: found '..'; allowed: 1 to 80 letters"),
    ("name=a..b", "name: found 'a..b'; allowed: a name without '..'"),
    ("seeds=0", "seeds: found 0; allowed: a count above 0"),
    ("seeds=true", "seeds: found True; allowed: a count above 0"),
    ("seeds={int: 2}", "seeds.int: unknown key (did you mean init?); allowed: init, order, split"),
    ("seeds=[1, 1]", "seeds: found [1, 1]; allowed: each value once (1 is there twice)"),
    ("launch.pack=all", "launch.pack: found 'all'; allowed: learning_rates, or a number of members"),
    ("wandb.mode=of", "wandb.mode: found 'of'; allowed: 'auto', 'online', 'offline' or 'disabled'"),
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
    (f"models=[{'long' * 23}]", "allowed: a list of model names (see `python -m study models`) or import paths"),
    ("learning_rates={log_uniform: [1], count: 2}", "learning_rates.log_uniform: found [1]; allowed: two numbers"),
    (
        "learning_rates={log_uniform: [0.1, 0.1001], count: 300}",
        "allowed: wider limits, or a count of at most 2: no more rates of four digits were drawn",
    ),
    (
        "seeds={init: 1000, order: 1000, split: 1000}",
        "seeds: found '3 × 3 × 1,000,000,000 runs'; allowed: at most 1,000,000 (models × learning rates × seeds)",
    ),
    ("analysis.confidence=0.4", "analysis.confidence: found 0.4; allowed: greater than 0.5"),
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
    "models": st.lists(st.sampled_from(["lenet5", "mlp_matched", "a.b:C", "d"]), unique=True).map(
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
    "training.weight_decay": st.floats(0, allow_infinity=False),
    "training.validation_size": COUNTS,
    "launch.cpus_per_trial": COUNTS,
    "launch.gpus_per_trial": st.floats(0, 1) | st.integers(0, 64),
    "launch.pack": COUNTS | st.just("learning_rates"),
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
@settings(max_examples=3000, deadline=None)
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
@settings(max_examples=1500, deadline=None)
@given(data=st.data(), key=st.sampled_from(sorted(VALID)))
def test_every_valid_override_is_applied(scratch, data, key):
    scratch.write_text(yaml.safe_dump(MINIMAL))
    value = data.draw(VALID[key])
    config = load(scratch, [f"{key}={json.dumps(value)}"])
    assert_holds(config.resolved(), nested({key: value}))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
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
@settings(max_examples=3000, deadline=None)
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
