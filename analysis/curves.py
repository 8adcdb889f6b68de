"""Learning curves: the mean over seeds of every epoch's metrics, with its t interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

METRICS = ("train_accuracy", "val_accuracy", "test_accuracy", "train_loss", "val_loss", "test_loss")
KEYS = ["model", "learning_rate"]


def curves(runs: pd.DataFrame, epochs: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """One row per model, learning rate, metric and epoch, in that order: `mean`, `low`, `high`, `n`, `planned`.

    `runs` has a row per planned run and `epochs` one per (run_id, epoch). The interval is mean ± t · SD / √n over
    the runs that reached the epoch with finite numbers, clipped to what the metric can be; NaN where n = 1 or all
    are equal. A diverged run counts up to its last finite epoch, so n may fall along a curve.
    """
    planned = runs.groupby(KEYS, sort=False, as_index=False).size().rename(columns={"size": "planned"})
    if epochs.empty:
        return pd.DataFrame(columns=[*KEYS, "metric", "epoch", "mean", "low", "high", "n", "planned"])
    settings = runs.set_index("run_id")[KEYS]
    long = epochs.join(settings, on="run_id", validate="many_to_one").melt(
        id_vars=[*KEYS, "epoch"], value_vars=list(METRICS), var_name="metric"
    )
    points = long.groupby([*KEYS, "metric", "epoch"], sort=True)["value"].agg(["mean", "std", "count"]).reset_index()
    n = points["count"].to_numpy()
    critical = stats.t.ppf((1 + confidence) / 2, np.maximum(n - 1, 1))
    half = np.where((n > 1) & (points["std"] > 0), critical * points["std"] / np.sqrt(n), np.nan)
    highest = np.where(points["metric"].str.endswith("accuracy"), 1.0, np.inf)
    points["low"] = np.maximum(points["mean"] - half, 0.0)
    points["high"] = np.minimum(points["mean"] + half, highest)
    points = points.rename(columns={"count": "n"}).merge(planned, on=KEYS, validate="many_to_one")
    return points[[*KEYS, "metric", "epoch", "mean", "low", "high", "n", "planned"]]
