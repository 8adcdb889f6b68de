"""Our accuracies beside published ones, and beside what the config expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.stats.estimate import Estimate, Frozen

CHECKS = "learning rate, number of epochs, preprocessing, implementation"
"""What to look at when a model does not reach the accuracy expected of it."""


class Reference(Frozen):
    """One published result beside ours."""

    model: str
    """Our model beside it."""
    source: str
    """Who published it."""
    accuracy: float
    """Published test accuracy, a fraction."""
    note: str
    """How its recipe differs."""
    ours: Estimate | None
    """Our mean test accuracy at the selected rate; null without one."""


def beside(
    references: Mapping[str, Sequence[Mapping[str, Any]]], ours: Mapping[str, Estimate]
) -> tuple[Reference, ...]:
    """The config's references, each with our mean test accuracy at the selected rate where there is one."""
    return tuple(
        Reference(model=model, ours=ours.get(model), **reference)
        for model, results in references.items()
        for reference in results
    )


def unexpected(expected: Mapping[str, Sequence[float]], ours: Mapping[str, Estimate]) -> list[str]:
    """One warning for each model whose mean test accuracy lies outside what the config expects of it."""
    warnings = []
    for model, (low, high) in expected.items():
        mean = ours[model].estimate if model in ours else None
        if mean is not None and not low <= mean <= high:
            warnings.append(
                f"{model} reaches {100 * mean:.2f}% on the test set, outside the {100 * low:g}% to {100 * high:g}% "
                f"expected: check {CHECKS}"
            )
    return warnings
