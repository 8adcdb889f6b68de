"""What a model takes a digit for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.frames import Frames


def read_as(frames: Frames, run_ids: Sequence[str], model: str, digits: Sequence[int]) -> list[int]:
    """What the runs of `model` among `run_ids` predict most often for each of the test digits; of equals the smallest.

    Runs without predictions are left out; there must be one with them.
    """
    own = set(frames.runs.loc[frames.runs["model"] == model, "run_id"])
    known = [run_id for run_id in run_ids if run_id in own and run_id in frames.predictions]
    predicted = np.stack([frames.predictions[run_id]["test"] for run_id in known])[:, list(digits)]
    return [int(np.bincount(column).argmax()) for column in predicted.T]
