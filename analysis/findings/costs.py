"""What the study cost, from times and machines; apart from the findings, since it cannot be reproduced."""

from __future__ import annotations

import json
from typing import Any

from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.stats.sample_size import hours


def to_json(frames: Frames, findings: Findings) -> str:
    """The text of costs.json: seconds of training by model and device, and hours that more seeds would take."""
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
        "machines": sorted(runs["machine"].dropna().unique()),
        "torch_versions": sorted(runs["torch_version"].dropna().unique()),
        "git_commits": sorted(runs["git_commit"].dropna().unique()),
        "hours_of_training_for": of_more_seeds(frames, findings),
        "runs_with_several_attempts": int((frames.runs["attempts"].fillna(1) > 1).sum()),
    }
    return json.dumps(costs, indent=1, allow_nan=False) + "\n"


def of_more_seeds(frames: Frames, findings: Findings) -> list[dict[str, Any]]:
    """Hours, one run at a time, of the seeds that each half-width needs: at the selected rates, and of the whole grid.

    Packs train many runs in the time of few, so these add up what each run took of its pack.
    """
    runs = frames.runs[frames.runs["train_seconds"].notna()]
    seconds = runs.groupby(["model", "learning_rate"])["train_seconds"].median()
    found = []
    for c in findings.comparisons:
        models = {findings.about.settings.candidate: c.candidate_rate, c.baseline: c.baseline_rate}
        chosen = [seconds.get((model, rate)) for model, rate in models.items()]
        grid = seconds[seconds.index.get_level_values("model").isin(models)]
        if None in chosen:
            continue
        for needed in findings.planning[c.baseline].needed:
            for population, seeds in (("seeds", needed.over_seeds), ("seeds and test images", needed.over_images)):
                if seeds.estimate is not None:
                    found.append(
                        {
                            "baseline": c.baseline,
                            "half_width": needed.half_width,
                            "population": population,
                            "seeds": int(seeds.estimate),
                            "hours_at_selected_rates": round(hours(seeds.estimate, chosen), 3),
                            "hours_of_whole_grid": round(hours(seeds.estimate, list(grid)), 3),
                        }
                    )
    return found
