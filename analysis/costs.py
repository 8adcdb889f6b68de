"""What the study cost: everything computed from time and machines, apart from the findings, since it cannot repeat."""

from __future__ import annotations

import json

from analysis.frames import Frames


def to_json(frames: Frames) -> str:
    """The text of costs.json: seconds of training by model, by device and in all, and the runs that took attempts."""
    runs = frames.runs[frames.runs["train_seconds"].notna()]
    by_model = {
        model: {
            "runs": len(part),
            "train_seconds": round(float(part["train_seconds"].sum()), 3),
            "median_seconds_per_run": round(float(part["train_seconds"].median()), 3),
        }
        for model, part in runs.groupby("model")
    }
    by_device = {
        device: {"runs": len(part), "train_seconds": round(float(part["train_seconds"].sum()), 3)}
        for device, part in runs.groupby("device")
    }
    costs = {
        "format": 1,
        "train_seconds": round(float(runs["train_seconds"].sum()), 3),
        "by_model": by_model,
        "by_device": by_device,
        "nodes": sorted(runs["node"].dropna().unique()),
        "torch_versions": sorted(runs["torch_version"].dropna().unique()),
        "git_commits": sorted(runs["git_commit"].dropna().unique()),
        "runs_with_several_attempts": int((frames.runs["attempts"].fillna(1) > 1).sum()),
    }
    return json.dumps(costs, indent=1) + "\n"
