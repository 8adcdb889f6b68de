import pytest
import torch

from tests import cli

# As in a study's workers; two threads on two busy cores wait for each other most of the time.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The folder of a small study that nothing disturbed: what every disturbed one is compared with."""
    folder = tmp_path_factory.mktemp("small") / "undisturbed"
    code, output = cli.run("run", cli.config(folder))
    assert code == 0, output
    return folder / "storage" / "small"


@pytest.fixture
def place(undisturbed, tmp_path_factory):
    """An empty folder beside the undisturbed study's, so that both share one dataset."""
    return tmp_path_factory.mktemp("case", numbered=True) if undisturbed is None else _beside(undisturbed)


def _beside(undisturbed):
    parent = undisturbed.parent.parent.parent
    folder = parent / f"case{len(list(parent.iterdir()))}"
    folder.mkdir()
    return folder
