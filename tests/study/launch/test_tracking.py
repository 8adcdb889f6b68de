import json
import re
import shlex
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from study import config_file
from study.config_file import validate
from study.errors import UserError
from study.launch import plan, tracking
from study.launch.tracking import Settings, Tracker
from study.ledger.records import METRICS, Provenance
from study.ledger.runs import PlannedRun
from study.redaction import mask
from tests import examples, processes
from tests.examples import RUN

WHERE = Provenance(pack_id="0" * 12, pack_size=2, node="here", machine="a machine", git_commit="c" * 40)


def planned(k=2):
    runs = [RUN.model_copy(update={"learning_rate": 0.01 * (i + 1)}) for i in range(k)]
    return [PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=1) for run in runs]


def settings(folder, **changes):
    fields = dict(mode="offline", project="p", entity=None, folder=str(folder), study="s") | changes
    return Settings(**fields)


def metrics(epoch, k=2):
    return {name: np.arange(k) + epoch + 0.1 + 0.2 for name in METRICS}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A worker that has not logged yet."""
    monkeypatch.setattr(tracking, "_worker", tracking._Worker())


def read_offline(file: Path) -> dict[str, object]:
    """A W&B file as wandb itself reads it: the run's record, `history` (step → what was logged), `summary`, `exit`."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=processes.environment())
    found = {"history": {}, "summary": {}, "exit": None}
    for line in done.stdout.splitlines():
        content = json.loads(line)
        if content["type"] == "history":
            items = content["history"]["item"]
            assert items["_step"] not in found["history"], "an epoch twice"
            found["history"][items["_step"]] = items
        elif content["type"] == "run":
            found |= content["run"]
        elif content["type"] == "summary":
            found["summary"] |= content["summary"].get("update", {})
        elif content["type"] == "exit":
            found["exit"] = content["exit"].get("exit_code", 0)
    return found


def files(folder):
    return sorted(Path(folder).rglob("*.wandb"))


@pytest.mark.slow
def test_offline_files_explain_every_run_and_hold_its_epochs_as_the_ledger_does(offline):
    folder, output, _ = offline
    where = re.search(r"W&B: offline; its files: (.*)/wandb\n", output)[1]
    study = json.loads((folder / "study.json").read_bytes())
    records = {r["run_id"]: r for r in (json.loads(p.read_bytes()) for p in (folder / "runs").iterdir())}
    found = {run["run_id"].removeprefix("small-"): run for run in map(read_offline, files(where))}
    assert len(files(where)) == len(found)
    assert set(found) == set(records)
    for run_id, record in records.items():
        run, science, config = found[run_id], record["run"], found[run_id]["config"]["update"]
        name = f"{science['model']} lr {science['learning_rate']:g}"
        assert run["display_name"] == f"{name} seed {science['seed']}"
        assert run["run_group"] == f"{name} {config['configuration_id']}"
        assert run["job_type"] == science["model"]
        assert set(run["tags"]) == {"small", science["model"]}
        assert {key: config[key] for key in science} == science
        assert config["provenance/node"] == run["host"] == record["provenance"]["node"]
        for key in ("device", "machine", "versions", "pack_size"):
            assert config[f"provenance/{key}"] == record["provenance"][key]
        assert config["provenance/pack"] == record["provenance"]["pack_id"]
        assert config["provenance/commit"] == study["launches"][0]["git_commit"]
        assert sorted(run["history"]) == [1, 2, 3]
        for name in METRICS:
            section = name.replace("_", "/", 1)
            assert [run["history"][epoch][section] for epoch in (1, 2, 3)] == record["epochs"][name]
            assert run["summary"][f"final/{name}"] == record["final"][name]
            best = max if name.endswith("accuracy") else min
            values = record["epochs"][name]
            assert run["summary"][section] == {"last": values[-1], best.__name__: best(values)}
        assert run["summary"]["state"] == "finished"
        assert run["exit"] == 0


@pytest.mark.slow
def test_the_notes_hold_a_command_that_trains_the_same_run(offline):
    """Read as a shell and the command line read it, it plans one run, and that has the id."""
    where = re.search(r"W&B: offline; its files: (.*)/wandb\n", offline[1])[1]
    for run in map(read_offline, files(where)):
        words = shlex.split(re.search(r"`(.*)`", run["notes"])[1])
        assert words[:4] == ["python", "-m", "study", "run"]
        config = config_file.load(processes.ROOT / words[4], words[5:])
        (again,) = plan.prepare(config, to_train=False).planned
        assert run["run_id"] == f"small-{again.run_id}"


@pytest.mark.slow
def test_no_key_in_any_file_or_line(offline):
    folder, output, ray = offline
    where = Path(re.search(r"W&B: offline; its files: (.*)/wandb\n", output)[1])
    # The ledger and W&B's cache, its offline files, the logs of Ray, its workers and Tune.
    assert any("worker" in path.name for path in ray.rglob("*.err"))
    assert processes.leaks(folder.parent.parent, where, ray) == []
    assert processes.KEY not in output


@pytest.mark.slow
def test_a_worker_serves_one_pack_after_another(tmp_path):
    for study in ("one", "two"):
        tracker = Tracker(settings(tmp_path / study, study=study), planned(), WHERE)
        for epoch in (1, 2):
            tracker.log(epoch, metrics(epoch), np.array([True, epoch < 2]))
        assert tracker.fail("broken") == []
    for study in ("one", "two"):
        runs = [read_offline(file) for file in files(tmp_path / study)]
        steps = {run["run_id"]: sorted(run["history"]) for run in runs}
        assert steps == {f"{study}-{p.run_id}": [1, 2] if k == 0 else [1] for k, p in enumerate(planned())}
        assert [run["exit"] for run in runs] == [1, 1]


@pytest.mark.slow
def test_an_unreachable_server_costs_bounded_time_and_nothing_else(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # a worker reads its environment once, when it first logs
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", processes.KEY)
    tracker = Tracker(settings(tmp_path, mode="online", init_timeout=1), planned(), WHERE)
    for epoch in (1, 2):
        tracker.log(epoch, metrics(epoch), np.array([True, True]))
    assert tracking._worker.waited == 0, "logging waits for nothing"
    warnings = tracker.fail("broken")
    # The next packs do not wait for it again, and no worker waits longer in all.
    for study in ("next", "last"):
        tracker = Tracker(settings(tmp_path / study, mode="online", init_timeout=30, study=study), planned(), WHERE)
        tracker.log(1, metrics(1), np.array([True, True]))
        warnings += tracker.fail("broken")
    assert tracking._worker.waited < 2 * tracking.PATIENCE_SECONDS
    written = tracking.threading.Event()
    tracking._worker.do(written.set)
    assert written.wait(60)
    warnings += tracking._worker.warnings
    assert len([w for w in warnings if "this worker logs offline" in w]) == 1, warnings
    assert not any(processes.KEY in w for w in warnings)
    first = [file for file in files(tmp_path / "wandb") if "offline-run-" in str(file)]
    assert [len(read_offline(file)["history"]) for file in first] == [2, 2]
    for study in ("next", "last"):
        assert [len(read_offline(file)["history"]) for file in files(tmp_path / study)] == [1, 1]


def test_training_waits_for_nobody(tmp_path, monkeypatch):
    """Whatever W&B takes a minute for, all packs of a worker together wait a few seconds."""
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.3)
    slow = Fake()
    monkeypatch.setattr(slow, "init", lambda **options: time.sleep(60))
    monkeypatch.setitem(sys.modules, "wandb", slow)
    began = time.monotonic()
    for _ in range(5):
        tracker = Tracker(settings(tmp_path), planned(), WHERE)
        for epoch in (1, 2, 3):
            tracker.log(epoch, metrics(epoch), np.array([True, True]))
        tracker.finish([])
    assert 0.3 <= tracking._worker.waited < 1.2
    assert time.monotonic() - began < 30


class Fake:
    """Stands for wandb: notes what runs are started with; its runs refuse every epoch."""

    errors = types.SimpleNamespace(CommError=OSError, UsageError=TypeError)
    Settings = dict

    def __init__(self, error=None):
        self.error, self.started, self.ended = error, [], []

    def init(self, **options):
        if self.error:
            raise self.error
        self.started.append(options)
        return self

    def define_metric(self, *arguments, **options):
        pass

    def log(self, *arguments, **options):
        raise RuntimeError("full")

    def finish(self, exit_code):
        self.ended.append(exit_code)

    @property
    def summary(self):
        return {}


@pytest.mark.parametrize("error", [MemoryError("no more"), None], ids=["start", "epochs"])
def test_what_goes_wrong_is_said_once(tmp_path, monkeypatch, error):
    monkeypatch.setitem(sys.modules, "wandb", Fake(error))
    told = []
    for _ in range(2):
        tracker = Tracker(settings(tmp_path), planned(), WHERE)
        for epoch in (1, 2, 3):
            tracker.log(epoch, metrics(epoch), np.array([True, True]))
        told += tracker.finish([examples.record()] * 2)
    assert told == ["W&B: MemoryError: no more" if error else "W&B: RuntimeError: full"]


def test_a_run_that_diverged_has_ended_and_one_that_failed_has_not(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    records = [examples.record(state=state) for state in ("finished", "diverged", "failed")]
    assert Tracker(settings(tmp_path), planned(3), WHERE).finish(records) == []
    assert sorted(fake.ended) == [0, 0, 1]
    ends = [tracking.summary(record) for record in records]
    assert [end["state"] for end in ends] == ["finished", "diverged", "failed"]
    assert ends[1]["diverged_epoch"] == records[1].diverged_epoch
    assert "final/test_accuracy" in ends[0]


def test_a_pack_of_many_members_is_left_to_sync(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for members in (tracking.MOST_MEMBERS, tracking.MOST_MEMBERS + 1):
        Tracker(settings(tmp_path), planned(members), WHERE).finish([])
    assert len(fake.started) == tracking.MOST_MEMBERS
    config = validate(CONFIG, "test")
    for mode, when in (("online", "at the end"), ("offline", "by python -m study sync")):
        told = [tracking.lines(config, settings(tmp_path, mode=mode), {}, members) for members in (32, 33)]
        assert [len(lines) for lines in told] == [1, 2]
        assert f"the largest has 33, are published from the ledger alone, {when}" in told[1][1]


def test_the_longest_names_that_a_config_may_hold_fit(tmp_path, monkeypatch):
    """W&B refuses more than 128 characters, and 64 in a tag."""
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tree = {"name": "s" * 80, "models": ["m" * 90], "learning_rates": [1.234567e-300], "seeds": [2**63 - 1]}
    config = validate(tree, "test")
    environ = {"WANDB_TAGS": "a,b," + "t" * 100, "WANDB_NOTES": "mine", "WANDB_RUN_GROUP": "g" * 200}
    told = tracking.settings(config, {"NETRC": "/nonexistent", "WANDB_DIR": str(tmp_path)} | environ)
    run = RUN.model_copy(
        update=dict(model=config.models[0], learning_rate=config.learning_rates[0], seed=config.seeds[0])
    )
    pack = [PlannedRun(run_id=run.run_id, run=run, n_parameters=1, macs=1)]
    Tracker(told, pack, WHERE).finish([])
    (options,) = fake.started
    assert max(len(options[key]) for key in ("id", "name", "group", "job_type")) <= 128
    assert options["group"].endswith(run.configuration_id)
    assert options["tags"] == ["s" * 64, "m" * 64, "a", "b", "t" * 64, "g" * 64]
    assert options["notes"].startswith("mine\n\nMade by `python -m study run ")
    assert options["settings"]["program"] == "study/__main__.py"
    assert options["settings"]["host"] == "here"


def test_a_folder_that_cannot_be_written_is_replaced_by_one_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tracking.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "wandb", fake := Fake())
    told = Tracker(settings(tmp_path / "file"), planned(), WHERE).finish([examples.record()] * 2)
    (folder,) = {options["dir"] for options in fake.started}
    assert folder.startswith(str(tmp_path / "lenet5-vs-mlp-"))
    assert told == [f"W&B: {tmp_path / 'file'} cannot be written; W&B's files are in {folder}/wandb"]


def test_disabled_does_nothing(tmp_path):
    tracker = Tracker(settings(tmp_path / "x", mode="disabled"), planned(), WHERE)
    tracker.log(1, metrics(1), np.array([True, True]))
    tracker.finish([])
    assert not (tmp_path / "x").exists()


CONFIG = {"name": "s", "models": ["lenet5"], "learning_rates": [0.1], "seeds": 1}


@pytest.mark.parametrize(
    ("mode", "environ", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, "offline"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("offline", {"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "offline"),
        ("online", {"WANDB_API_KEY": "k"}, "online"),
    ],
)
def test_auto_is_online_with_a_key(tmp_path, mode, environ, expected):
    environ = {"NETRC": "/nonexistent", "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_DIR": str(tmp_path)} | environ
    assert tracking.resolve(mode, environ) == expected


@pytest.mark.parametrize(
    ("machine", "url", "expected"),
    [
        ("api.wandb.ai", None, "online"),
        ("wandb.example.com", "https://wandb.example.com", "online"),
        ("wandb.example.com:8080", "http://wandb.example.com:8080/", "online"),
        ("wandb.example.com", None, "offline"),
        ("api.wandb.ai", "https://wandb.example.com", "offline"),
    ],
)
@pytest.mark.parametrize("said_by", ["environment", "login"])
def test_the_key_of_the_server_in_use_counts(tmp_path, machine, url, expected, said_by):
    netrc = tmp_path / "netrc"
    netrc.write_text(
        f"machine github.com\n  login a\n  password b\nmachine {machine}\n  login user\n  password {'0' * 40}\n"
    )
    environ = {"NETRC": str(netrc), "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_DIR": str(tmp_path)}
    if url and said_by == "login":
        (tmp_path / "settings").write_text(f"[default]\nbase_url = {url}\n")
    elif url:
        environ["WANDB_BASE_URL"] = url
    assert tracking.resolve("auto", environ) == expected
    travels = {"WANDB_API_KEY": "0" * 40} | ({"WANDB_BASE_URL": url.rstrip("/")} if url else {})
    passed = tracking.environment(environ)
    assert passed.pop("WANDB_CONFIG_DIR")
    assert passed == (travels if expected == "online" else {k: v for k, v in travels.items() if "URL" in k})


@pytest.mark.parametrize("content", [b"machine", b"\xff\xfe", b"machine api.wandb.ai login user password"])
def test_a_damaged_netrc_holds_no_key(tmp_path, content):
    (tmp_path / "netrc").write_bytes(content)
    assert tracking.api_key({"NETRC": str(tmp_path / "netrc")}) is None


def test_w_and_bs_variables_count_where_the_config_leaves_them_open(tmp_path):
    environ = {"WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team", "WANDB_DIR": str(tmp_path), "NETRC": "/nonexistent"}
    config = validate(CONFIG, "test")
    found = tracking.settings(config, environ)
    assert (found.project, found.entity, found.folder) == ("theirs", "team", str(tmp_path))
    assert tracking.filled_in(config, environ).wandb.project == "theirs"
    said = validate(CONFIG | {"wandb": {"project": "ours", "entity": "us", "mode": "offline"}}, "test")
    environ |= {"WANDB_MODE": "online", "WANDB_RUN_GROUP": "g", "WANDB_NAME": "n"}
    found = tracking.settings(said, environ)
    assert (found.mode, found.project, found.entity) == ("offline", "ours", "us")
    told = "\n".join(tracking.lines(said, found, environ))
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE", "WANDB_RUN_GROUP", "WANDB_NAME"):
        assert f"{name}" in told
    assert "the config says wandb.project: ours" in told
    bare = {"NETRC": "/nonexistent", "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_DIR": str(tmp_path)}
    assert tracking.settings(config, bare).project == "lenet5-vs-mlp"
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nproject = noted\nentity = team\n")
    assert tracking.settings(config, bare).project == "noted"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"WANDB_PROJECT": "a/b"}, "WANDB_PROJECT: found 'a/b'; allowed: 1 to 80 letters"),
        ({"WANDB_MODE": "sometimes"}, "WANDB_MODE: found 'sometimes'; allowed: online, offline, disabled"),
        (
            {"WANDB_MODE": "online"},
            "wandb.mode: found online, and no key for api.wandb.ai; allowed: a key, from `wandb login` or in WANDB_API",
        ),
    ],
)
def test_a_mistake_in_w_and_bs_variables_is_one_line(tmp_path, environ, message):
    environ = {"NETRC": "/nonexistent", "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_DIR": str(tmp_path)} | environ
    with pytest.raises(UserError, match=re.escape(message)):
        tracking.settings(validate(CONFIG, "test"), environ)


def test_only_wandb_variables_travel():
    environ = {"WANDB_API_KEY": "k", "WANDB_SERVICE": "3-1-tcp-localhost-1", "AWS_SECRET_ACCESS_KEY": "s"}
    environ |= {"WANDB_NAME": "n", "WANDB_DIR": "/x", "WANDB_HTTP_TIMEOUT": "5"}
    assert tracking.environment(environ) == {"WANDB_API_KEY": "k", "WANDB_HTTP_TIMEOUT": "5"}


def test_the_id_is_the_same_every_time_and_tells_studies_apart():
    assert tracking.wandb_id("a", "0" * 12) == "a-000000000000" != tracking.wandb_id("b", "0" * 12)


def test_settings_hold_no_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", processes.KEY)
    assert processes.KEY not in repr(settings("x"))


@pytest.mark.parametrize(
    "secret",
    [
        processes.KEY,
        "AKIAABCDEFGHIJKLMNOP",
        "wandb_v1_abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
    ],
)
def test_what_looks_like_a_key_is_masked(secret):
    assert secret not in mask(f"request failed with key {secret}: 401")


def test_values_of_secret_variables_are_masked(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    assert mask("login as me with hunter2hunter2, abc") == "login as me with ***, abc"
    assert mask("s3://user:secret@host/x") == "s3://***@host/x"
