"""Ray Tune and the driver's side of it, with what a worker trains replaced."""

import io
import os

import pytest
from rich.console import Console

from study import data
from study.driver import Driver
from study.launch import Interrupted, launch
from study.ledger import Ledger
from study.progress import Progress
from study.storage import Storage
from tests import cli, idx
from tests.cli import KEY
from tests.test_driver import PACK
from tests.test_ledger import RUN2

pytestmark = pytest.mark.slow


def unloadable():
    """What to do with a pack, for which a worker lacks a module. Made here, so that it travels by value."""
    driver = os.getpid()

    def load():
        if os.getpid() != driver:
            raise ModuleNotFoundError(f"No module named 'nets', with the key {KEY}")
        return Train()

    class Train:
        def __reduce__(self):
            return load, ()

        def __call__(self, pack, data, report):
            raise AssertionError("no worker has got this far")

    return Train()


def raising():
    def train(pack, data, report):
        raise ValueError("before a word was sent")

    return train


def start(folder, train, **options):
    """Launch one pack: its ledger and what was printed."""
    dataset = data.load(str(idx.write(folder / "digits", idx.learnable())))
    ledger, console = Ledger(Storage(folder / "ledger")), Console(file=io.StringIO(), width=200)
    driver = Driver(ledger, [PACK], {}, Progress([PACK], console))
    launch([PACK], dataset, train, driver, **{"address": cli.ray_address(), **options})
    return ledger, console.file.getvalue()


@pytest.mark.parametrize(
    ("train", "why"), [(unloadable(), "No module named 'nets'"), (raising(), "ValueError: before a word was sent")]
)
def test_workers_that_cannot_start_are_not_retried_for_ever(tmp_path, train, why):
    ledger, printed = start(tmp_path, train)
    record = ledger.records()[0][RUN2.run_id]
    assert record.state == "failed"
    assert why in record.provenance.error
    assert why in printed
    assert KEY not in printed + record.provenance.error


def test_an_error_of_ray_is_an_interruption(tmp_path):
    def ready(dashboard):
        raise OSError(28, "No space left on device")

    with pytest.raises(Interrupted, match=r"an error of Ray \(OSError: .* No space left"):
        start(tmp_path, raising(), ready=ready)
