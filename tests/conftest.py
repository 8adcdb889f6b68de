import gc
import os
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch

from study import wandb_access
from tests import processes, wandb_server

# A machine that is busy is no failure.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

# As in a study's workers; two threads on two busy cores wait for each other most of the time.
torch.set_num_threads(1)


def pytest_collection_finish():
    """Keep the collector off all that was imported: statsmodels asks for a full collection at every Holm correction."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def offline(tmp_path_factory):
    """A small study that nothing disturbed, logged to offline W&B files: its ledger's folder, what it printed, and
    the folder of its Ray's files."""
    folder = tmp_path_factory.mktemp("small") / "undisturbed"
    path = processes.config(folder, wandb={"mode": "offline"})
    # Not below the other: the paths of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray:
        changes = {"WANDB_API_KEY": processes.KEY, "RAY_TMPDIR": ray, "XDG_CACHE_HOME": str(folder / "cache")}
        changes["WANDB_DIR"] = str(folder / "logged")
        code, output = processes.run("run", path, own_ray=True, **changes)
        assert code == 0, output
        yield folder / "storage" / "small", output, Path(ray)


@pytest.fixture(scope="session")
def undisturbed(offline):
    """The ledger's folder of a small study: what every disturbed one is compared with."""
    return offline[0]


@pytest.fixture(scope="session")
def longer(undisturbed):
    """The ledger's folder of an undisturbed study that takes long enough to be disturbed."""
    folder = undisturbed.parent.parent.parent / "longer"
    code, output = processes.run("run", processes.config(folder, **processes.LONGER))
    assert code == 0, output
    return folder / "storage" / "small"


@pytest.fixture
def place(undisturbed):
    """An empty folder beside the undisturbed study's, so that both share one dataset."""
    parent = undisturbed.parent.parent.parent
    folder = parent / f"case{len(list(parent.iterdir()))}"
    folder.mkdir()
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A W&B server on this machine, and this process as that of somebody who has a key for it."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    with wandb_server.serve() as started:
        monkeypatch.setenv("WANDB_BASE_URL", started.url)
        monkeypatch.setenv("WANDB_API_KEY", processes.KEY)
        monkeypatch.setenv("WANDB_DIR", str(tmp_path))
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
        wandb_access.end()
        yield started
        wandb_access.end()
