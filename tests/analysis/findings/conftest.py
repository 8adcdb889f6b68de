import pytest

from analysis import frames
from analysis.findings.build import collect
from study.ledger.ledger import Ledger
from study.ledger.storage import Storage
from tests import synthetic
from tests.analysis.findings.studies import FAST, MODELS, STATES


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("findings")
    return synthetic.write(folder, MODELS, seeds=6, n_test=400, n_val=300, states=STATES, analysis=FAST)


@pytest.fixture(scope="session")
def loaded(written):
    return frames.load(written)


@pytest.fixture(scope="session")
def findings(loaded):
    return collect(loaded)


@pytest.fixture(scope="session")
def records(written):
    """(model, learning rate, seed) → record, read without the frames."""
    found, _ = Ledger(Storage(written)).records()
    return {(r.run.model, r.run.learning_rate, r.run.seed): r for r in found.values()}
