"""The simulation fitted to runs that it made itself, and to nothing that it cannot be fitted to."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from analysis.calibration import fit
from analysis.calibration.simulation import BASELINE, CANDIDATE
from analysis.frames import load
from study.errors import UserError
from tests import synthetic
from tests.analysis.calibration.spread import seed_sd


def drawn(seeds=40, images=40_000, correlation=0.7):
    rng = np.random.default_rng(3)
    z, other = rng.standard_normal((2, images))
    sides = CANDIDATE.ease(z), BASELINE.ease(correlation * z + np.sqrt(1 - correlation**2) * other)
    return [
        rng.standard_normal((seeds, images)) < ease + model.omega * rng.standard_normal((seeds, 1))
        for model, ease in zip((CANDIDATE, BASELINE), sides, strict=True)
    ]


def test_the_truth_is_found_again():
    right = drawn()
    for model, x in zip((CANDIDATE, BASELINE), right, strict=True):
        found = fit.moments(x)
        assert found.accuracy == pytest.approx(x.mean(), abs=1e-12)
        assert found.tau == pytest.approx(model.tau, rel=0.05)
        assert seed_sd(found) == pytest.approx(seed_sd(model), rel=0.2)
    assert fit.correlation(*right) == pytest.approx(0.7, abs=0.03)


def test_the_latent_correlation_by_the_bivariate_normal():
    h, k, rho = norm.ppf(0.98), norm.ppf(0.96), 0.6
    both = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([h, k])
    assert fit._solve(both - 0.98 * 0.96, h, k) == pytest.approx(rho, abs=1e-3)
    assert fit._solve(0.0, h, k) == 0
    assert fit._solve(1.0, h, k) == fit.CLOSEST


def test_a_scenario_a_baseline(tmp_path):
    ledger = synthetic.write(tmp_path, seeds=6, n_test=2000)
    scenarios = fit.fit(load(ledger))
    assert [s.name.rpartition("− ")[2] for s in scenarios] == ["mlp", "mlp_matched"]
    assert all(0 < s.correlation <= 1 and s.candidate.accuracy > 0.9 for s in scenarios)


def test_too_few_runs_are_one_line(tmp_path):
    ledger = synthetic.write(tmp_path, seeds=1)
    with pytest.raises(UserError, match="lenet5 has too few runs that learned"):
        fit.fit(load(ledger))
