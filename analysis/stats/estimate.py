"""The form every finding takes: a number that says what it is, how sure we are, and what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, WithJsonSchema, model_validator

RunSet = Annotated[
    str | tuple[str, ...] | None,
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
]
"""The runs behind a number: their ids while it is computed, in findings.json the key of `run_sets` that lists them."""

Role = Literal["confirmatory", "check", "sensitivity", "descriptive"]


class Frozen(BaseModel):
    """A part of the findings: fixed once made, known keys only, never NaN, every key described by its docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Basis(Frozen):
    """What a finding rests on, and how it was computed.

    A statistic takes one, and returns what it `gives`, or why it `declines`.
    """

    method: str
    """What was computed, in a reader's words: "mean of paired differences ± t, 19 degrees of freedom"; where numbers
    were drawn, how many and with which seed."""
    n: int
    """Units the number rests on (seeds, pairs, test images: see `unit`) ..."""
    planned: int
    """... of this many planned."""
    unit: str
    """What n counts: seeds, runs, pairs of runs …"""
    population: Literal["seeds", "seeds and test images"] | None = None
    """What an interval generalises to: seeds (these test images), or seeds and test images (new images of the same
    kind)."""
    role: Role = "descriptive"
    """Whether the number confirms, checks, varies a choice, or describes."""
    runs: RunSet = None
    """Key into findings' `run_sets`: the run ids this rests on."""

    def changed(self, **fields: object) -> Self:
        """A copy with other fields, validated like the original, as `model_copy` does not."""
        return type(self).model_validate({**dict(self), **fields})

    def gives(
        self,
        value: float | None = None,
        low: float | None = None,
        high: float | None = None,
        level: float | None = None,
        *,
        p_value: float | None = None,
        warning: str | None = None,
    ) -> Estimate:
        """The number that rests on this, with its interval [low, high] at `level` or its test."""
        return Estimate(**dict(self), estimate=value, low=low, high=high, level=level, p_value=p_value, warning=warning)

    def declines(self, reason: str, value: float | None = None, *, p_value: float | None = None) -> Estimate:
        """A finding without its number, or with it but without interval, and why."""
        return Estimate(**dict(self), estimate=value, p_value=p_value, declined=reason)


class Estimate(Basis):
    """One number with its interval or test, or the reason why there is none.

    Never NaN and never a zero-width interval: where the data cannot give a number, `declined` says why.
    """

    estimate: float | None = None
    """The number; null where declined, or where there is a test alone."""
    low: float | None = None
    """Lower limit of the interval."""
    high: float | None = None
    """Upper limit of the interval."""
    level: float | None = None
    """Confidence of [low, high], e.g. 0.95."""
    p_value: float | None = None
    """Two-sided unless `method` says otherwise."""
    warning: str | None = None
    """E.g. "below nominal: covers about 90% at n = 10"."""
    declined: str | None = None
    """Why there is no estimate, interval or p-value, in one sentence."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both limits, where there are any."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @model_validator(mode="after")
    def _honest(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low is not None and self.level is None):
            raise ValueError("an interval needs both limits and its level")
        if self.interval and not self.interval[0] < self.interval[1]:
            raise ValueError(f"interval [{self.low}, {self.high}] has no width: decline it instead")
        if self.estimate is None and self.p_value is None and self.declined is None:
            raise ValueError("a finding without a number must say why")
        return self

    def warned(self, warning: str | None) -> Self:
        """A copy with one more warning; itself where there is none."""
        if warning is None:
            return self
        return self.changed(warning=warning if self.warning is None else f"{self.warning}; {warning}")


def mapped(part: Any, change: Callable[[Basis], Basis]) -> Any:  # noqa: ANN401
    """A copy of a part of the findings, of whatever kind, with `change` made to every basis and estimate in it."""
    if isinstance(part, Mapping):
        return {key: mapped(value, change) for key, value in part.items()}
    if isinstance(part, tuple):
        return tuple(mapped(value, change) for value in part)
    if not isinstance(part, Frozen):
        return part
    part = part.model_copy(update={name: mapped(value, change) for name, value in part})
    return change(part) if isinstance(part, Basis) else part
