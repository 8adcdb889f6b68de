"""Curves of figures: every epoch's metrics as means over seeds with t intervals, and the line of a QQ plot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from study.ledger.records import METRICS

KEYS = ["model", "learning_rate"]


def curves(runs: pd.DataFrame, epochs: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """One row per model, learning rate, metric and epoch, in that order: `mean`, `low`, `high`, `n`, `planned`.

    `runs` has a row per planned run and `epochs` one per (run_id, epoch). The mean is over the runs that learned, as
    everywhere else, the interval mean ± t · SD / √n, clipped to what the metric can be. It is NaN where n = 1 or all
    are equal, and at learning rates where a run diverged or collapsed: it would describe neither those that learned,
    of which some are near collapse, nor all of them. Beside the metrics there is `generalisation_gap`, accuracy in
    training minus that on the test images.
    """
    fell = ~runs["learned"] & runs["state"].isin(["finished", "diverged"])
    about = runs.assign(fell=fell).groupby(KEYS, sort=False).agg(planned=("run_id", "size"), fell=("fell", "any"))
    trained = epochs[epochs["run_id"].isin(runs.loc[runs["learned"], "run_id"])]
    if trained.empty:
        return pd.DataFrame(columns=[*KEYS, "metric", "epoch", "mean", "low", "high", "n", "planned"], dtype=float)
    trained = trained.assign(generalisation_gap=trained["train_accuracy"] - trained["test_accuracy"])
    settings = runs.set_index("run_id")[KEYS]
    long = trained.join(settings, on="run_id", validate="many_to_one").melt(
        id_vars=[*KEYS, "epoch"], value_vars=[*METRICS, "generalisation_gap"], var_name="metric"
    )
    points = long.groupby([*KEYS, "metric", "epoch"], sort=True)["value"].agg(["mean", "std", "count"]).reset_index()
    points = points.rename(columns={"count": "n"}).merge(about, on=KEYS, validate="many_to_one")
    n = points["n"].to_numpy()
    critical = stats.t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1))
    known = (n > 1) & (points["std"] > 0) & ~points["fell"]
    half = np.where(known, critical * points["std"] / np.sqrt(n), np.nan)
    highest = np.where(points["metric"].str.endswith("loss"), np.inf, 1.0)
    lowest = np.where(points["metric"] == "generalisation_gap", -1.0, 0.0)
    points["low"] = np.maximum(points["mean"] - half, lowest)
    points["high"] = np.minimum(points["mean"] + half, highest)
    return points[[*KEYS, "metric", "epoch", "mean", "low", "high", "n", "planned"]]


def normal_line(quantiles: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Where a normal distribution of the values' mean and SD puts each of (standard normal quantile, value)."""
    x, values = np.array(quantiles).T
    return values.mean() + values.std(ddof=1) * x
