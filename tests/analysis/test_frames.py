"""Frames: every planned run has a row, whatever became of it, and nothing unsound enters a number."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from analysis import frames
from analysis.findings.build import collect
from analysis.grid import grids
from study.errors import UserError
from study.launch.plan import packs
from study.ledger import ledger
from study.ledger.ledger import Ledger, npz
from study.ledger.records import METRICS, Study
from study.ledger.runs import PlannedRun
from study.ledger.storage import Storage
from tests import synthetic

STATES = {
    ("lenet5", 0.01, 1): "diverged",
    ("mlp", 0.01, 2): "failed",
    ("mlp", 0.03, 0): "missing",
    ("mlp_matched", 0.003, 2): "collapsed",
    ("mlp_matched", 0.01, 0): "unpredicted",
}
SMALL = dict(seeds=3, n_test=120, n_val=50, states=STATES)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("frames"), **SMALL)


@pytest.fixture(scope="module")
def loaded(written):
    return frames.load(written)


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def record_files(folder):
    return sorted((folder / "runs").iterdir())


# one row per planned run


def test_every_planned_run_has_a_row_whatever_became_of_it(loaded):
    runs = loaded.runs
    assert len(runs) == 3 * 3 * 3
    assert runs["run_id"].is_unique
    key = list(zip(runs["model"], runs["learning_rate"], runs["seed"], strict=True))
    assert key == [(m, r, s) for m in synthetic.DEFAULT for r in (0.003, 0.01, 0.03) for s in range(3)]
    state = dict(zip(key, runs["state"], strict=True))
    shown = {"collapsed": "finished", "unpredicted": "finished"}
    assert state == {k: shown.get(STATES.get(k), STATES.get(k, "finished")) for k in key}
    assert set(frames.COLUMNS) == set(runs.columns)


def test_runs_hold_what_their_records_hold(written, loaded):
    records, _ = Ledger(Storage(written)).records()
    for row in loaded.runs.to_dict("records"):
        if row["run_id"] not in records:
            assert row["state"] == "missing"
            assert all(np.isnan(row[f"final_{m}"]) for m in METRICS)
            continue
        record = records[row["run_id"]]
        assert (row["model"], row["learning_rate"], row["seed"]) == (
            record.run.model,
            record.run.learning_rate,
            record.run.seed,
        )
        assert row["state"] == record.state
        for metric in METRICS:
            value = row[f"final_{metric}"]
            assert np.isnan(value) if record.final is None else value == record.final[metric]
        assert row["train_seconds"] == record.provenance.train_seconds
    diverged = loaded.runs.query("state == 'diverged'")
    assert list(diverged["diverged_epoch"]) == [3]


def test_epochs_hold_every_finite_epoch(written, loaded):
    records, _ = Ledger(Storage(written)).records()
    assert not loaded.epochs.duplicated(["run_id", "epoch"]).any()
    assert len(loaded.epochs) == sum(r.n_epochs for r in records.values())
    for run_id, curve in loaded.epochs.groupby("run_id"):
        assert list(curve["epoch"]) == list(range(1, records[run_id].n_epochs + 1))
        for metric in METRICS:
            assert tuple(curve[metric]) == records[run_id].epochs[metric]


def test_a_study_that_has_not_trained_yet_is_all_missing(tmp_path):
    everything = {(m, r, s): "missing" for m in synthetic.DEFAULT for r in (0.003, 0.01, 0.03) for s in range(2)}
    found = frames.load(synthetic.write(tmp_path, seeds=2, n_test=20, n_val=10, states=everything))
    assert set(found.runs["state"]) == {"missing"}
    assert found.epochs.empty
    assert list(found.epochs.columns) == ["run_id", "epoch", *METRICS]


def test_collapsed_is_no_better_than_guessing_for_any_number_of_classes(loaded):
    runs = loaded.runs.set_index(["model", "learning_rate", "seed"])
    assert list(runs.index[runs["collapsed"]]) == [("mlp_matched", 0.003, 2)]
    assert runs["learned"].sum() == 27 - 4
    assert (frames._row(*_planned_and_record(loaded, 0.19), classes=10))["collapsed"]
    assert not (frames._row(*_planned_and_record(loaded, 0.2), classes=10))["collapsed"]
    # Twice the guessing rate of two classes is 1: a good run must not count as collapsed.
    assert not (frames._row(*_planned_and_record(loaded, 0.9), classes=2))["collapsed"]
    assert (frames._row(*_planned_and_record(loaded, 0.6), classes=2))["collapsed"]


def _planned_and_record(loaded, train_accuracy):
    planned = loaded.study.packs[0].runs[0]
    records, _ = Ledger(Storage(loaded.source)).records()
    record = records[planned.run_id]
    return planned, record.model_copy(update=dict(final=dict(record.final) | {"train_accuracy": train_accuracy}))


# predictions


def test_predictions_give_the_accuracies_of_the_records(loaded):
    runs = loaded.runs.set_index("run_id")
    lost = set(runs.index[runs["state"] == "finished"]) - set(loaded.predictions)
    assert [runs.loc[r, "model"] for r in lost] == ["mlp_matched"]
    for run_id in loaded.predictions:
        for split in ("test", "val"):
            right = loaded.correct([run_id], split)
            assert right.dtype == bool
            assert right.mean() == pytest.approx(runs.loc[run_id, f"final_{split}_accuracy"], rel=1e-12)
    assert loaded.correct([next(iter(lost))]) is None
    assert loaded.correct([]) is None
    ids = list(loaded.predictions)[:4]
    np.testing.assert_array_equal(loaded.correct(ids)[2], loaded.correct([ids[2]])[0])


def test_lost_and_altered_predictions_are_reported_and_left_out(copy):
    first, second = [p.stem for p in sorted((copy / "predictions").iterdir())][:2]
    path = copy / "predictions" / f"{first}.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (copy / "predictions" / f"{second}.npz").unlink()
    found = frames.load(copy)
    assert not {first, second} & set(found.predictions)
    reasons = {p.path: p.reason for p in found.problems}
    assert "SHA-256" in reasons[f"predictions/{first}.npz"]
    assert reasons[f"predictions/{second}.npz"] == "missing"
    assert len(found.runs) == 27


@pytest.mark.parametrize(
    "arrays",
    [
        dict(val=np.zeros(50, np.uint8), test=np.zeros(119, np.uint8)),
        dict(val=np.zeros(49, np.uint8), test=np.zeros(120, np.uint8)),
        dict(val=np.zeros(50, np.uint8), test=np.zeros(120, np.int64)),
        dict(test=np.zeros(120, np.uint8)),
    ],
)
def test_predictions_of_other_digits_are_left_out(copy, arrays):
    import hashlib

    run_id = sorted((copy / "predictions").iterdir())[0].stem
    content = npz(arrays)
    (copy / "predictions" / f"{run_id}.npz").write_bytes(content)
    path = copy / "runs" / f"{run_id}.json"
    record = json.loads(path.read_text()) | {"predictions_sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(record))
    found = frames.load(copy)
    assert run_id not in found.predictions
    assert f"predictions/{run_id}.npz" in [p.path for p in found.problems]


def test_a_record_that_contradicts_its_predictions_is_damaged_and_in_no_number(copy):
    path = copy / "runs" / f"{sorted((copy / 'predictions').iterdir())[0].stem}.json"
    record = json.loads(path.read_text())
    record["final"]["val_accuracy"] = abs(record["final"]["val_accuracy"] - 1 / 50)
    record["epochs"]["val_accuracy"][-1] = record["final"]["val_accuracy"]
    path.write_text(json.dumps(record))
    found = frames.load(copy)
    assert record["run_id"] not in found.predictions
    reasons = {p.path: p.reason for p in found.problems}
    assert reasons[f"runs/{record['run_id']}.json"] == "gives another val accuracy than its predictions"
    (row,) = found.runs[found.runs["run_id"] == record["run_id"]].to_dict("records")
    assert (row["state"], row["learned"]) == ("missing", False)
    assert record["run_id"] not in set(found.epochs["run_id"])


@pytest.mark.parametrize("metric", [name for name in METRICS if not name.startswith("train")])
def test_a_record_whose_last_epoch_is_not_its_end_is_damaged_and_in_no_number(copy, metric):
    path = copy / "runs" / f"{sorted((copy / 'predictions').iterdir())[0].stem}.json"
    record = json.loads(path.read_text())
    record["epochs"][metric][-1] += 1e-9 if metric.endswith("loss") else -1e-9
    path.write_text(json.dumps(record))
    found = frames.load(copy)
    reasons = {p.path: p.reason for p in found.problems}
    assert reasons[f"runs/{path.name}"] == f"gives another {metric} at its end than after its last epoch"
    assert found.runs.set_index("run_id").loc[record["run_id"], "state"] == "missing"
    assert record["run_id"] not in set(found.epochs["run_id"]) | set(found.predictions)


# records that are none


def test_torn_records_are_reported_and_their_runs_missing(copy):
    torn, renamed, *_ = record_files(copy)
    torn.write_text(torn.read_text()[:100])
    shutil.copy(renamed, copy / "runs" / "0123456789ab.json")
    found = frames.load(copy)
    assert dict(zip(found.runs["run_id"], found.runs["state"], strict=True))[torn.stem] == "missing"
    assert {p.path for p in found.problems} >= {f"runs/{torn.stem}.json", "runs/0123456789ab.json"}
    assert len(found.runs) == 27


def test_records_that_nobody_planned_are_reported(copy, tmp_path):
    other = synthetic.write(tmp_path, **SMALL | dict(learning_rates=(0.5,), states={}))
    foreign = record_files(other)[0]
    shutil.copy(foreign, copy / "runs" / foreign.name)
    found = frames.load(copy)
    assert foreign.stem not in set(found.runs["run_id"])
    assert [p.reason for p in found.problems if p.path.endswith(foreign.name)] == [
        "belongs to no run this study planned"
    ]


def _merge(folder, other):
    """Let `folder` be launched again as `other` was, and hold the records of both."""
    ours, theirs = (Ledger(Storage(f)).read_study() for f in (folder, other))
    known = {r.run_id for p in ours.packs for r in p.runs}
    fresh = [r for p in theirs.packs for r in p.runs if r.run_id not in known]
    merged = Study(
        name=ours.name,
        dataset=ours.dataset,
        launches=[*ours.launches, *theirs.launches],
        packs=[*ours.packs, *packs(fresh, "learning_rates")],
    )
    Ledger(Storage(folder)).write_study(merged)
    for kind in ("runs", "predictions"):
        for path in (other / kind).iterdir():
            shutil.copy(path, folder / kind / path.name)
    return frames.load(folder)


def test_runs_of_another_recipe_are_set_apart_and_never_mixed(copy, tmp_path):
    other = synthetic.write(tmp_path, **SMALL | dict(epochs=4, seeds=2, states={}))
    found = _merge(copy, other)
    assert set(found.runs["epochs"]) == {4}
    assert len(found.runs) == 18
    assert len(found.set_aside) == 27
    assert not {p.run_id for p in found.set_aside} & (set(found.runs["run_id"]) | set(found.predictions))


def test_runs_of_an_older_source_of_a_model_are_set_apart(copy, tmp_path):
    before = frames.load(copy)
    study = Ledger(Storage(copy)).read_study()
    edited = [
        PlannedRun(run_id=run.run_id, run=run, n_parameters=p.n_parameters, macs=p.macs)
        for p in (p for pack in study.packs for p in pack.runs)
        if p.run.model == "mlp" and p.run.seed < 2
        for run in [p.run.model_copy(update={"model_fingerprint": "f" * 12})]
    ]
    grown = study.model_copy(update={"packs": [*study.packs, *packs(edited, "learning_rates")]})
    Ledger(Storage(copy)).write_study(grown)
    found = frames.load(copy)
    mlp = found.runs[found.runs["model"] == "mlp"]
    assert set(mlp["run_id"]) == {p.run_id for p in edited}
    assert {p.run_id for p in found.set_aside} == set(before.runs.query("model == 'mlp'")["run_id"])
    assert not set(mlp["run_id"]) & set(found.predictions)


def test_seeds_pair_by_what_they_stand_for_not_by_their_label(copy, tmp_path):
    # Seed 1 was (init 1, order 1); in the factorial of the second launch, seed 1 is (init 1, order 0).
    other = synthetic.write(tmp_path, **SMALL | dict(seeds={"init": 2, "order": 2, "split": 1}, states={}))
    found = _merge(copy, other)
    table = grids(found)
    streams = found.runs.set_index("run_id")[["init_seed", "order_seed", "split_seed"]].apply(tuple, axis=1)
    assert found.runs.duplicated(["model", "learning_rate", "seed"]).any()
    for model, grid in table.items():
        assert grid.planned.sum() == (found.runs["model"] == model).sum()
    for column in range(table["mlp"].run_ids.shape[1]):
        ids = [r for grid in table.values() for r in grid.run_ids[:, column] if r]
        assert len({streams[r] for r in ids}) == 1


# where a study may be


def test_a_uri_and_an_exported_archive_are_the_same_study(written, loaded, tmp_path):
    archive = tmp_path / "study.ZIP"
    ledger.export(Storage(written), archive)
    for source in (f"file://{written}", archive):
        found = frames.load(source)
        assert found.runs.equals(loaded.runs)
        assert found.epochs.equals(loaded.epochs)
        assert found.predictions.keys() == loaded.predictions.keys()
        assert found.problems == loaded.problems
        np.testing.assert_array_equal(found.test_images, loaded.test_images)
    (archive.parent / "plain.zip").write_text("no archive")
    with pytest.raises(UserError, match="not a ZIP"):
        frames.load(archive.parent / "plain.zip")


@pytest.mark.parametrize("name", ["../outside.json", "/outside.json", "runs/../../outside.json", "a\\..\\b"])
def test_archives_cannot_write_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("study.json", "{}")
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(UserError):
        frames.load(tmp_path / "evil.zip")
    assert not (tmp_path.parent / "outside.json").exists()


def test_archives_that_would_fill_the_disk_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "LARGEST_ARCHIVE", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("study.json", "0" * 100_000)
    with pytest.raises(UserError, match="unpacks to more"):
        frames.load(tmp_path / "bomb.zip")


def test_a_damaged_archive_is_one_line(written, tmp_path):
    archive = tmp_path / "study.zip"
    ledger.export(Storage(written), archive)
    content = bytearray(archive.read_bytes())
    content[60:90] = bytes(30)
    archive.write_bytes(content)
    with pytest.raises(UserError) as error:
        frames.load(archive)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["study.json", "dataset/test_labels.npy", "dataset/val_labels_0.npy"])
def test_what_analysis_cannot_do_without_is_named(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(UserError, match=missing.split("/")[-1]):
        frames.load(copy)


def test_no_study_is_one_line(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.zip"):
        with pytest.raises(UserError, match="holds no study"):
            frames.load(source)


# clusters of test images


def test_clusters_are_those_of_the_study_or_of_a_file_and_in_no_archive_unless_asked_for(copy, tmp_path):
    assert frames.load(copy).test_clusters is None
    Ledger(Storage(copy)).write_dataset({"test_clusters": np.arange(120) // 4})
    assert np.array_equal(frames.load(copy).test_clusters, np.arange(120) // 4)
    ledger.export(Storage(copy), tmp_path / "study.zip")
    assert frames.load(tmp_path / "study.zip").test_clusters is None
    ledger.export(Storage(copy), tmp_path / "study.zip", with_clusters=True)
    assert np.array_equal(frames.load(tmp_path / "study.zip").test_clusters, np.arange(120) // 4)
    (tmp_path / "ids").write_text("\n".join(str(i % 3) for i in range(120)))
    assert np.array_equal(frames.load(copy, tmp_path / "ids").test_clusters, np.arange(120) % 3)


def test_clusters_of_other_images_are_one_line(copy):
    Ledger(Storage(copy)).write_dataset({"test_clusters": np.arange(119)})
    with pytest.raises(UserError, match=r"found 119 ids; allowed: 120"):
        frames.load(copy)


# damaged studies


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ["launches", 0, "config", "analysis"],
            None,
            r"config\.analysis: found None; allowed: an analysis",
        ),
        (
            ["launches", 0, "config", "models"],
            [],
            r"config\.models: found \[\]; allowed: a list of built-in models",
        ),
        (["launches", 0, "config", "models"], "mlp", r"allowed: a list of built-in models"),
        (["launches", 0, "config", "models"], [5], r"launches\.0\.config\.models: found \[5\]; allowed: a list of"),
        (["launches", 0, "config", "models"], [None], r"config\.models: found \[None\]; allowed"),
        (["launches", 0, "config", "models", 0], {"name": ["x"]}, r"config\.models: found \[\{'name': .*; allowed"),
        (["launches", 0, "config", "learning_rates"], 0.01, r"learning_rates: found 0\.01; allowed: a list of num"),
        (["launches", 0, "config", "learning_rates", 0], [1], r"learning_rates: found \[\[1\], .*; allowed: a list"),
        (["launches", 0, "config", "seeds"], 1.5, r"config\.seeds: found 1\.5; allowed: a count above 0, a list"),
        (["launches", 0, "config", "seeds"], True, r"config\.seeds: found True; allowed: a count"),
        (["launches", 0, "config", "seeds"], 10**18, r"config\.seeds: found 1000000000000000000; allowed: a count"),
        (["launches", 0, "config", "seeds"], [0, -1], r"config\.seeds: found \[0, -1\]; allowed"),
        (["launches", 0, "config", "seeds"], {"init": "x", "order": 1}, r"config\.seeds: found \{'init': .*; allowed"),
        (["launches", 0, "config", "wandb"], 5, r"config\.wandb: found 5; allowed: key: value pairs"),
        (["launches", 0, "config", "analysis", "references"], {"mlp": 5}, r"analysis\.references\.mlp: found 5; allo"),
        (["packs", 0, "runs", 0, "n_parameters"], 10**30, r"packs\.0\.runs\.0: n_parameters: found 10+; allowed: be"),
        (["launches", 0, "config", "analysis", "confidence"], "high", r"analysis\.confidence: found 'high'"),
        (
            ["launches", 0, "config", "analysis", "confidence"],
            0.9999999999999999,
            r"confidence: found 0\.9999999999999999",
        ),
        (
            ["launches", 0, "config", "analysis"],
            {"baselines": ["mlp"], "confidence": 0.5000000000000001},
            r"confidence: found 0\.5000000000000001; allowed: from 0\.500001 to 0\.9",
        ),
        (["launches", 0, "config", "analysis", "resamples"], 0, r"analysis\.resamples: found 0; allowed: greater"),
        (["dataset", "classes"], 0, r"dataset\.classes: found 0; allowed: 10 to 256"),
        (["dataset", "n_test"], 0, r"dataset\.n_test: found 0; allowed: 120"),
        (["dataset", "n_test"], 121, r"dataset\.n_test: found 121; allowed: 120, the number of test labels"),
    ],
)
def test_a_damaged_study_is_one_line(copy, path, value, words):
    tree = json.loads((copy / "study.json").read_text())
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (copy / "study.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=words) as error:
        collect(frames.load(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loss", [1e308, -0.1])
def test_impossible_losses_are_reported_and_in_no_number(copy, loss):
    (path, *_) = record_files(copy)
    record = json.loads(path.read_text())
    record["final"]["test_loss"] = loss
    path.write_text(json.dumps(record))
    found = frames.load(copy)
    assert [p.reason for p in found.problems if p.path == f"runs/{path.name}"] == [
        "Value error, losses must lie in [0, 3.5e+38]"
    ]
    assert found.runs.set_index("run_id").loc[record["run_id"], "state"] == "missing"
    collect(found, {"resamples": 100})
