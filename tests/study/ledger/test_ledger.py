import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from study.errors import UserError
from study.launch.plan import packs
from study.ledger.ledger import Ledger, LedgerError, export, from_npz, npz
from study.ledger.records import DatasetInfo, Launch, Layer, Study
from study.ledger.runs import PlannedRun
from study.ledger.storage import Storage
from tests.examples import PREDICTIONS, RUN2, record


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Storage(tmp_path / "study"))


def write(ledger, run=RUN2):
    written = record(run)
    ledger.write_record(written, npz(PREDICTIONS))
    return written


def test_what_is_written_is_read(ledger):
    written = write(ledger)
    records, problems = ledger.records()
    assert records == {RUN2.run_id: written}
    assert problems == []
    read = ledger.predictions(written)
    assert all(np.array_equal(read[name], PREDICTIONS[name]) for name in PREDICTIONS)


def test_the_same_record_is_the_same_bytes(tmp_path):
    ledgers = [Ledger(Storage(tmp_path / name)) for name in "ab"]
    for each in ledgers:
        write(each)
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(names) == 2
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_all_predictions_of_a_pack_are_there_before_its_first_record(ledger, monkeypatch):
    runs = [RUN2.model_copy(update={"learning_rate": 0.001 * k}) for k in (1, 2, 3)]
    written = []
    monkeypatch.setattr(ledger.storage, "write_all", lambda files: written.extend(n.partition("/")[0] for n in files))
    ledger.write_records([(record(run), npz(PREDICTIONS)) for run in runs])
    assert written == ["predictions"] * 3 + ["runs"] * 3


@pytest.mark.parametrize("state", ["finished", "diverged", "failed"])
def test_floats_survive_to_the_last_bit(ledger, state):
    value = 0.1 + 0.2
    given_ = record(state=state)
    given_ = given_.model_copy(update={"epochs": {k: tuple(value for _ in v) for k, v in given_.epochs.items()}})
    ledger.write_record(given_, npz(PREDICTIONS) if state == "finished" else None)
    assert ledger.records()[0][given_.run_id].epochs == given_.epochs


INCONSISTENT = {
    "an epoch too few": lambda r: r["epochs"].update({k: v[:-1] for k, v in r["epochs"].items()}),
    "a metric missing": lambda r: r["epochs"].pop("val_loss"),
    "unequal lengths": lambda r: r["epochs"].update(val_loss=[0.5]),
    "non-finite": lambda r: r["epochs"].update(val_loss=[0.5, None]),
    "accuracy in per cent": lambda r: r["epochs"].update(test_accuracy=[98.0, 99.0]),
    "finished without final": lambda r: r.update(final=None),
    "diverged without epoch": lambda r: r.update(state="diverged"),
    "unknown state": lambda r: r.update(state="done"),
    "unknown key": lambda r: r.update(extra=1),
    "foreign run_id": lambda r: r.update(run_id="ffffffffffff"),
    "changed learning rate": lambda r: r["run"].update(learning_rate=0.5),
    "wrong type": lambda r: r["run"].update(seed="0"),
    "newer format": lambda r: r.update(format=2),
}


def test_a_record_without_its_curves_is_checked_all_the_same(ledger):
    written = write(ledger)
    found, _ = ledger.records(curves=False)
    assert found == {RUN2.run_id: written.model_copy(update={"epochs": {}, "final": None})}
    name = f"runs/{written.run_id}.json"
    ledger.storage.write(name, ledger.storage.read(name).replace(b"0.5", b"1.5"))
    records, problems = ledger.records(curves=False)
    assert (len(records), len(problems)) == (0, 1)


@pytest.mark.parametrize("damage", INCONSISTENT)
def test_a_record_that_contradicts_itself_is_reported_and_left_out(ledger, damage):
    written = write(ledger)
    content = json.loads(written.model_dump_json())
    INCONSISTENT[damage](content)
    ledger.storage.write(f"runs/{written.run_id}.json", json.dumps(content).encode())
    records, problems = ledger.records()
    assert records == {}
    assert [p.path for p in problems] == [ledger.storage.path(f"runs/{written.run_id}.json")]
    assert problems[0].reason
    assert "\n" not in problems[0].reason


def test_records_that_are_known_are_not_read_again_but_have_to_be_there(ledger, monkeypatch):
    here, gone, new = (record(RUN2.model_copy(update={"learning_rate": rate})) for rate in (0.1, 0.2, 0.3))
    for each in (here, new):
        ledger.write_record(each, npz(PREDICTIONS))
    asked, read = [], ledger.storage.read
    monkeypatch.setattr(ledger.storage, "read", lambda name: asked.append(name) or read(name))
    records, problems = ledger.records(known={each.run_id: each for each in (here, gone)})
    assert (records, problems) == ({each.run_id: each for each in (here, new)}, [])
    assert list(records) == sorted(records)
    assert asked == [f"runs/{new.run_id}.json"]


def test_a_copy_under_another_name_is_a_problem_not_a_second_run(ledger):
    written = write(ledger)
    content = ledger.storage.read(f"runs/{written.run_id}.json")
    ledger.storage.write("runs/ffffffffffff.json", content)
    ledger.storage.write(f"runs/{written.run_id} (1).json", content)
    records, problems = ledger.records()
    assert list(records) == [written.run_id]
    assert len(problems) == 2


def test_a_truncated_record_is_reported(ledger):
    written = write(ledger)
    name = f"runs/{written.run_id}.json"
    ledger.storage.write(name, ledger.storage.read(name)[:-20])
    records, problems = ledger.records()
    assert (len(records), len(problems)) == (0, 1)


def test_altered_predictions_are_refused(ledger):
    written = write(ledger)
    name = f"predictions/{written.run_id}.npz"
    ledger.storage.write(name, npz({"val": PREDICTIONS["val"], "test": PREDICTIONS["test"][::-1]}))
    with pytest.raises(LedgerError, match="SHA-256"):
        ledger.predictions(written)
    ledger.storage.delete(name)
    with pytest.raises(LedgerError, match="missing"):
        ledger.predictions(written)


class Unpickled(Exception):
    pass


class Bomb:
    def __reduce__(self):
        return (exec, ("raise Exception('unpickled')",))


def test_nothing_is_unpickled(ledger):
    bomb = np.empty(1, object)
    bomb[0] = Bomb()
    with open(ledger.storage.root + ".npz", "wb") as file:
        np.savez(file, val=bomb)
    with open(ledger.storage.root + ".npz", "rb") as file:
        content = file.read()
    with pytest.raises(LedgerError, match="allow_pickle"):
        from_npz(content, "p")


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def changed(content, place, byte):
    return content[:place] + bytes([byte]) + content[place + 1 :]


NPY, NPZ = npy(PREDICTIONS["test"]), npz(PREDICTIONS)
NO_ARRAYS = {
    "empty": b"",
    "text": b"labels",
    "cut": NPY[:-1],
    "a header that is no Python": NPY[:10] + b"((((" + NPY[14:],
    "a header cut within a string": NPY[:10] + b"{'" + b" " * 100 + b"\n" + NPY[128:],
    "no dictionary": NPY[:10] + b"7" + b" " * 116 + b"\n" + NPY[128:],
    "a zip cut": NPZ[:-10],
    "a zip of nothing": b"PK\x05\x06" + b"\0" * 18,
    "compressed in a way of its own": changed(NPZ, NPZ.index(b"PK\1\2") + 10, 99),
    "encrypted": changed(NPZ, NPZ.index(b"PK\1\2") + 8, 1),
    "whole numbers": npy(np.arange(7)),
    "a number": npy(np.uint8(7)),
    "too many axes": npy(np.zeros((7, 1), np.uint8)),
    "other arrays": npz({"val": np.arange(5)}),
}


@pytest.mark.parametrize("damage", NO_ARRAYS)
def test_bytes_that_are_no_labels_are_one_line(ledger, damage):
    content = NO_ARRAYS[damage]
    ledger.storage.write("dataset/test_labels.npy", content)
    with pytest.raises(LedgerError, match=r"test_labels\.npy: "):
        ledger.dataset("test_labels")
    if damage != "a zip of nothing":
        with pytest.raises(LedgerError, match=r"^p: "):
            from_npz(content, "p")


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.data())
def test_any_bytes_are_labels_or_one_line(data):
    """A few bytes of a valid file changed: what is read is labels, whatever they say."""
    content = data.draw(st.sampled_from([NPY, NPZ]))
    for _ in range(data.draw(st.integers(1, 3))):
        content = changed(content, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 255)))
    with contextlib.suppress(LedgerError):
        assert all(a.dtype == np.uint8 and a.ndim == 1 for a in from_npz(content, "p").values())


def test_export_holds_the_ledger_and_nothing_else(ledger, tmp_path):
    write(ledger)
    ledger.storage.write("study.json", b"{}")
    ledger.storage.write("checkpoints/x.pt", b"big")
    ledger.write_dataset({"test_labels": PREDICTIONS["test"]})
    assert export(ledger.storage, tmp_path / "one.zip") == 4
    export(ledger.storage, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert "checkpoints/x.pt" not in archive.namelist()
        assert archive.read(f"runs/{RUN2.run_id}.json") == ledger.storage.read(f"runs/{RUN2.run_id}.json")
    with pytest.raises(UserError, match="holds no study"):
        export(Storage(tmp_path / "nothing"), tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("https://wandb.ai/me/lenet5-vs-mlp", True),
        ("http://127.0.0.1:8080/a-team/digits", True),
        ("javascript:alert(1)", False),
        ('https://wandb.ai/me/"onclick="alert(1)', False),
        ("https://wandb.ai/me\nhttps://elsewhere", False),
    ],
)
def test_where_a_study_is_published_is_noted_exported_and_no_link_to_anything_else(address, is_one, ledger, tmp_path):
    ledger.storage.write("study.json", b"{}")
    assert ledger.published() is None
    ledger.write_published(address)
    assert ledger.published() == (address if is_one else None)
    assert export(ledger.storage, tmp_path / "one.zip") == 2


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"project": 3}', b"\xff"])
def test_a_damaged_note_of_where_a_study_is_published_names_no_place(content, ledger):
    ledger.storage.write("wandb.json", content)
    assert ledger.published() is None


def test_layers_are_kept_and_a_study_planned_before_they_were_stays_as_it_is(ledger):
    before = study()
    ledger.write_study(before)
    content = ledger.storage.read("study.json")
    assert b"layers" not in content
    kept = (Layer(name="fc1", kind="linear", output_shape=(10,), formula="7840 + 10", n_parameters=7850, macs=7840),)
    ledger.write_study(before.model_copy(update={"layers": {"mlp": kept}}))
    assert ledger.read_study().layers == {"mlp": kept}
    ledger.write_study(ledger.read_study().model_copy(update={"layers": {}}))
    assert ledger.storage.read("study.json") == content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=8), t, max_size=3),
    max_leaves=8,
)


def study():
    """A study of one launch: two packs, of two runs each."""
    runs = [RUN2.model_copy(update=dict(learning_rate=r, seed=s, order_seed=s)) for s in (0, 1) for r in (0.1, 0.2)]
    planned = [PlannedRun(run_id=run.run_id, run=run, n_parameters=10, macs=10) for run in runs]
    sha = RUN2.dataset_sha256
    info = dict(name="mnist", sha256=sha, files={"train": sha}, n_train=6, n_test=7, classes=10, shape=(1, 28, 28))
    launch = dict(config={}, analysis_sha256=sha, recipe=RUN2.recipe, git_commit=None, git_dirty=None, versions={})
    return Study(
        name="small",
        dataset=DatasetInfo(**info, pixel_mean=0.13, pixel_sd=0.31),
        launches=[Launch(**launch, started_at="2000-01-01T00:00:00+00:00")],
        packs=packs(planned, "learning_rates"),
    )


def move(tree):
    """A run of the second pack joins the first, which is named after its runs again."""
    first, second = tree["packs"]
    first["runs"].append(second["runs"].pop())


DAMAGES = {
    "no launches": (lambda t: t.update(launches=[]), "launches: "),
    "a launch of a recipe that no run has": (lambda t: t["launches"][0].update(recipe={}), "launches: a recipe"),
    "an empty pack": (lambda t: t["packs"][0].update(runs=[]), "is empty"),
    "a pack twice": (lambda t: t["packs"].append(t["packs"][0]), "a run is planned twice"),
    "a run twice": (lambda t: t["packs"][0]["runs"].append(t["packs"][0]["runs"][0]), "a run is planned twice"),
    "a changed run": (lambda t: t["packs"][0]["runs"][0]["run"].update(epochs=3), "does not belong to its run"),
    "a run moved": (move, "does not belong to its runs"),
    "runs of two models": (lambda t: mix(t, model="mlp"), "cannot be trained together"),
    "runs of two splits": (lambda t: mix(t, split_seed=1), "cannot be trained together"),
    "runs of two lengths": (lambda t: mix(t, epochs=3), "cannot be trained together"),
}


def mix(tree, **changes):
    """Make a pack's second run, with its id, one that cannot be trained beside the first."""
    run = RUN2.model_copy(update=changes)
    tree["packs"][0]["runs"][1] |= dict(run_id=run.run_id, run=run.model_dump())


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_edited_study_is_one_line(ledger, damage):
    ledger.write_study(study())
    assert ledger.read_study().name == "small"
    tree = json.loads(ledger.storage.read("study.json"))
    edit, reason = DAMAGES[damage]
    edit(tree)
    ledger.storage.write("study.json", json.dumps(tree).encode())
    with pytest.raises(LedgerError, match=reason) as error:
        ledger.read_study()
    assert str(error.value).startswith(ledger.storage.path("study.json"))


@pytest.mark.slow
@settings(max_examples=2000)
@given(st.data())
def test_any_bytes_are_a_record_or_a_problem(tmp_path_factory, data):
    """Mutations of a valid record: bytes cut or changed, or any key set to any value."""
    ledger = Ledger(Storage(tmp_path_factory.getbasetemp() / "fuzzed"))
    valid = record().model_dump_json()
    content = data.draw(damaged(valid, lambda t: [t, t["run"], t["epochs"], t["provenance"], t["final"]]))
    ledger.storage.write("runs/" + RUN2.run_id + ".json", content)
    records, problems = ledger.records()
    assert len(records) + len(problems) == 1
    for found in records.values():
        assert found.run == RUN2.model_copy(update={"dataset": found.run.dataset, "seed": found.run.seed})
    assert all("\n" not in p.reason for p in problems)


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.data())
def test_any_bytes_are_a_study_or_one_line(tmp_path_factory, data):
    """Mutations of a valid study.json; what is accepted can be trained: every pack is one that was planned."""
    ledger = Ledger(Storage(tmp_path_factory.getbasetemp() / "fuzzed"))
    valid = study()
    content = data.draw(damaged(valid.model_dump_json(), study_nodes))
    ledger.storage.write("study.json", content)
    try:
        found = ledger.read_study()
    except LedgerError:
        return
    assert found.launches[-1].recipe == RUN2.recipe
    planned = [[p.run_id for p in pack.runs] for pack in valid.packs]
    assert [[p.run.run_id for p in pack.runs] for pack in found.packs] == planned


def study_nodes(tree):
    pack = tree["packs"][0]
    return [tree, tree["dataset"], *tree["launches"], pack, *pack["runs"], pack["runs"][0]["run"]]


@st.composite
def damaged(draw, valid, nodes):
    """The bytes of a valid file, cut or replaced, or with any key of a node set to anything, or taken away."""
    kind = draw(st.sampled_from(["cut", "bytes", "key", "key", "gone"]))
    if kind == "cut":
        return valid[: draw(st.integers(0, len(valid) - 1))].encode()
    if kind == "bytes":
        return draw(st.binary(max_size=80))
    tree = json.loads(valid)
    node = draw(st.sampled_from(nodes(tree)))
    key = draw(st.sampled_from(sorted(node)) | st.text(max_size=5))
    if kind == "gone":
        node.pop(key, None)
    else:
        node[key] = draw(JSON | st.just([]))
    return json.dumps(tree).encode()


def test_study_json_refuses_what_it_does_not_know():
    with pytest.raises(ValidationError):
        Study.model_validate({"format": 1, "surprise": 2})


def test_test_images_may_have_channels(ledger):
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    ledger.write_dataset({"test_images": images})
    assert np.array_equal(ledger.dataset("test_images"), images)
    ledger.write_dataset({"val_labels_0": images})
    with pytest.raises(LedgerError, match=r"val_labels_0\.npy: no array of unsigned bytes with 1 axes"):
        ledger.dataset("val_labels_0")
