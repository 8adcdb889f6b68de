import numpy as np
import pytest

from study.seeding import generator, stream


def test_streams_are_frozen():
    # These numbers are in every result: a change here changes every run of every study.
    assert stream("order", 0, 1) == 6948624756589500242
    assert stream("init", 0, "mlp") == 1654382003305515354
    assert generator("split", 0).permutation(5).tolist() == [4, 1, 0, 3, 2]


def test_names_do_not_run_into_each_other():
    assert stream("a", 12) != stream("a", 1, 2)
    assert stream("a1", 2) != stream("a", 12)
    assert stream("init", 1) != stream("init", "1")


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_neighbouring_seeds_share_no_batch_order(seed):
    """The mistake of `seed + epoch`: seed 0 at epoch 2 then has the order of seed 1 at epoch 1."""
    orders = {
        generator("order", s, epoch).permutation(1000).tobytes()
        for s in range(seed, seed + 5)
        for epoch in range(1, 11)
    }
    assert len(orders) == 50


def test_streams_look_uniform():
    values = np.array([stream("order", s, 1) for s in range(2000)], float) / 2**63
    assert abs(values.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 4 / 2000**0.5
