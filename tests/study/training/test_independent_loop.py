"""Packs, as the study trains them, against a plain loop that shares no code with them."""

import pytest
import torch

from analysis import frames
from study.training import data, loop
from tests import independent_loop
from tests.examples import RUN

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("model", "rates"), [("mlp_matched", (0.01, 0.03)), ("lenet5", (0.01,))])
def test_a_pack_is_so_many_plain_runs(model, rates):
    """An epoch of MNIST in double precision, where rounding does not grow to a different number within an epoch."""
    runs = [RUN.model_copy(update=dict(model=model, learning_rate=rate, epochs=1)) for rate in rates]
    (epoch,) = loop.train(runs, data.load("mnist"), dtype=torch.float64)
    for k, rate in enumerate(rates):
        ((loss, val, test),) = independent_loop.train(model, rate, seed=0, epochs=1, dtype=torch.float64)
        assert epoch.metrics["train_loss"][k] == pytest.approx(loss, rel=1e-9)
        assert (epoch.metrics["val_accuracy"][k], epoch.metrics["test_accuracy"][k]) == (val, test)


def test_published_runs_are_the_plain_loops():
    """In single precision rounding makes another run within an epoch or two, of the same kind: within half a point."""
    paper = frames.load("analysis/published/paper/paper.zip")
    runs = paper.runs.set_index(["model", "learning_rate", "seed"])["run_id"]
    for seed in (0, 1):
        published = paper.epochs.set_index("run_id").loc[runs["mlp_matched", 0.01, seed]].sort_values("epoch")
        metrics = published[["train_loss", "val_accuracy", "test_accuracy"]].head(2).to_numpy()
        assert metrics == pytest.approx(
            torch.tensor(list(independent_loop.train("mlp_matched", 0.01, seed, epochs=2))).numpy(), abs=0.005
        )
