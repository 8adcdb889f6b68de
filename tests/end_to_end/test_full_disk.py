"""A disk that is full or read-only, as the system makes it, under workers and under the driver."""

import contextlib
import io
import os
import subprocess

import pytest
from rich.console import Console

from study.launch.progress import Progress, bar
from study.launch.recorder import Recorder
from study.ledger.ledger import Ledger
from study.ledger.storage import Storage
from tests import processes
from tests.examples import DONE, PACK, RUN2, STARTED

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast):
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)


def stopped(code, output):
    assert code == 3, output
    assert "Traceback" not in output
    assert "error: storage: cannot write" in output
    assert "to go on once there is room: python -m study run" in output


def test_a_disk_that_fills_up_or_turns_read_only_stops_the_study_cleanly(longer, place, small_disk):
    path = processes.config(place, storage=str(small_disk), **processes.LONGER)
    folder, ballast = small_disk / "small", small_disk / "ballast"
    process = processes.start("run", path)
    processes.until(lambda: list(folder.glob("checkpoints/*.pt")), "the first epoch")
    fill(ballast)
    output, _ = process.communicate(timeout=processes.PATIENCE)
    stopped(process.returncode, output)
    ballast.unlink()

    before = processes.durable(folder)
    process = processes.start("run", path)
    processes.until(lambda: processes.durable(folder) - before, "the next epoch")
    remount = ["mount", "-o", "remount,{}", str(small_disk)]
    # Busy while a file is being written: tried again until it is between two.
    processes.until(
        lambda: subprocess.run([a.format("ro") for a in remount], capture_output=True, check=False).returncode == 0,
        "a moment to remount",
    )
    output, _ = process.communicate(timeout=processes.PATIENCE)
    stopped(process.returncode, output)
    subprocess.run([a.format("rw") for a in remount], check=True)

    code, output = processes.run("run", path)
    assert code == 0, output
    processes.assert_same(folder, longer)


def test_a_disk_that_is_full_for_a_record_alone_stops_the_study_until_there_is_room(small_disk):
    """Page by page there is more room: for the folders, for the predictions, and at last for the record."""
    ballast, ledger = small_disk / "ballast", Ledger(Storage(small_disk / "small"))
    fill(ballast)
    refused = []
    for _ in range(100):
        recorder = Recorder(ledger, [PACK], ledger.records()[0], Progress([PACK], bar(Console(file=io.StringIO()))))
        recorder.receive(0, STARTED)
        recorder.receive(0, DONE)
        records, problems = ledger.records()
        assert problems == []
        if recorder.stopped is None:
            break
        assert records == {}
        refused.append(recorder.stopped)
        os.truncate(ballast, max(0, ballast.stat().st_size - 4096))
    assert list(records) == [RUN2.run_id]
    assert any(f"cannot write {ledger.storage}/runs/" in line for line in refused), refused
    assert all(line.endswith("No space left on device") for line in refused)
    assert ledger.predictions(records[RUN2.run_id])
    assert not list((small_disk / "small").rglob(".writing-*"))
