"""Families of tests: p-values adjusted by Holm within each; whatever is in none of them is descriptive.

F1, confirmatory: the baselines at their selected rates. F2: baselines × learning rates. F3: baselines × classes. A
test that was not made still counts in its family's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.findings.schema import Comparison, Digits
from analysis.stats.paired import holm
from analysis.stats.sweep import Sweep


def comparisons(found: Sequence[Comparison], level: float) -> tuple[Comparison, ...]:
    """F1: the sign-flip tests of the primary gaps."""
    adjusted = holm([c.seeds.sign_flip.p_value for c in found], level)
    return tuple(c.model_copy(update=dict(p_holm=p)) for c, p in zip(found, adjusted, strict=True))


def sweeps(found: Mapping[str, Sweep], level: float) -> dict[str, Sweep]:
    """F2: the sign-flip tests at every learning rate, by baseline."""
    adjusted = iter(holm([rate.sign_flip.p_value for sweep in found.values() for rate in sweep.rates], level))
    return {
        baseline: sweep.model_copy(
            update=dict(rates=tuple(r.model_copy(update=dict(adjusted_p=next(adjusted))) for r in sweep.rates))
        )
        for baseline, sweep in found.items()
    }


def classes(found: Mapping[str, Digits], level: float, classes: int) -> dict[str, Digits]:
    """F3: the tests on the digits of each of so many `classes`, by baseline; without predictions none could be made."""
    made = [[c.gap.p_value for c in digits.classes] for digits in found.values()]
    adjusted = iter(holm([p for own in made for p in [*own, *[None] * (classes - len(own))]], level))
    corrected = {}
    for baseline, digits in found.items():
        own = [next(adjusted) for _ in range(classes)]
        entries = (c.model_copy(update=dict(adjusted_p=p)) for c, p in zip(digits.classes, own, strict=False))
        corrected[baseline] = digits.model_copy(update=dict(classes=tuple(entries)))
    return corrected
