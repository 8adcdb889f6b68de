"""The analysis block: what of it may be set otherwise than declared, and its defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.findings.preregistration import filled_in
from analysis.findings.schema import Settings
from analysis.frames import Frames
from study.errors import UserError

OVERRIDABLE = {
    "candidate": str,
    "baselines": lambda names: names.split(","),
    "confidence": float,
    "margin": float,
    "resamples": int,
    "seed": int,
}
"""Keys of the analysis block that `python -m analysis` may set otherwise than declared; each becomes a deviation."""

LIMITS = {"confidence": (0.5, 1), "margin": (0, 1), "resamples": (99, 1_000_001), "seed": (-1, 2**63)}
"""Between which values, both left out, the numbers among them may lie."""


def settings(frames: Frames, block: Mapping[str, Any]) -> Settings:
    """The analysis block with its defaults filled in: the first model against all others."""
    models, block = frames.models, filled_in(block, frames.models)
    candidate, baselines = block["candidate"], block["baselines"]
    for name in (candidate, *baselines):
        if name not in models:
            raise UserError(f"analysis: found model {name!r}; allowed: {', '.join(models)}")
    if candidate in baselines or len(set(baselines)) < len(baselines):
        raise UserError(f"analysis: found baselines {', '.join(baselines)}; allowed: other models, each once")
    if not block["confidence"] > 0.5:
        # The verdict needs the interval at 1 − 2α / B too.
        raise UserError(f"analysis.confidence: found {block['confidence']}; allowed: more than 0.5, less than 1")
    return Settings(
        candidate=candidate,
        baselines=tuple(baselines),
        **{key: block[key] for key in ("confidence", "margin", "resamples", "seed")},
    )
