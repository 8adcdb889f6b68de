import pytest
import torch

from tests import cli

# As in a study's workers; two threads on two busy cores wait for each other most of the time.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def offline(tmp_path_factory):
    """A small study that nothing disturbed, logged to offline W&B files: its ledger's folder and what it printed."""
    folder = tmp_path_factory.mktemp("small") / "undisturbed"
    code, output = cli.run("run", cli.config(folder, wandb={"mode": "offline"}), own_ray=True, WANDB_API_KEY=cli.KEY)
    assert code == 0, output
    return folder / "storage" / "small", output


@pytest.fixture(scope="session")
def undisturbed(offline):
    """The ledger's folder of a small study: what every disturbed one is compared with."""
    return offline[0]


@pytest.fixture(scope="session")
def longer(undisturbed):
    """The ledger's folder of an undisturbed study that takes long enough to be disturbed."""
    folder = undisturbed.parent.parent.parent / "longer"
    code, output = cli.run("run", cli.config(folder, **cli.LONGER))
    assert code == 0, output
    return folder / "storage" / "small"


@pytest.fixture
def place(undisturbed):
    """An empty folder beside the undisturbed study's, so that both share one dataset."""
    parent = undisturbed.parent.parent.parent
    folder = parent / f"case{len(list(parent.iterdir()))}"
    folder.mkdir()
    return folder
