"""Is this the analysis that the study declared before its first run?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from analysis.frames import shown
from analysis.stats.estimate import Frozen
from study.config import Analysis, Mistake, ResolvedAnalysis, sha256
from study.errors import UserError
from study.ledger.records import Launch

LOWEST, HIGHEST = 0.5 + 1e-6, 1 - 1e-9
"""The lowest and the highest level of a verdict. Nearer to ½ the interval of equivalence, at twice the level less 1,
may round to no width; nearer to 1 limits could not be told from infinity."""

GROWING = ("models", "learning_rates", "seeds")
"""Keys of the config by which a study grows from launch to launch."""


class Deviation(Frozen):
    """A key of the config that was used with another value than declared, or that grew after the first launch."""

    key: str
    """Key of the config."""
    declared: Any
    """Its value at the first launch."""
    used: Any
    """Its value in the analysis made; where it was added, what was."""
    added: bool = False
    """Whether a later launch added to it."""

    @property
    def words(self) -> str:
        """The deviation in a sentence."""
        if self.added:
            values = self.used if isinstance(self.used, list) else [self.used]
            return f"{self.key} added after the first launch: {', '.join(map(str, values))}"
        if isinstance(self.declared, Mapping) or isinstance(self.used, Mapping):
            return f"{self.key} differs"
        return f"{self.key} {self.used}, not {self.declared}"


class Preregistration(Frozen):
    """The declared analysis block against the one used."""

    declared_sha256: str
    """Stored with the study's first launch, before any run had ended."""
    used_sha256: str
    """Of the block used."""
    as_declared: bool
    """The same analysis of the same models, learning rates and seeds."""
    deviations: tuple[Deviation, ...]
    """Every difference, one by one."""

    def of(self, key: str) -> Deviation | None:
        """The deviation on a key of the analysis block."""
        return next((d for d in self.deviations if d.key == key and not d.added), None)


def read(block: Mapping[str, Any], models: Sequence[str], where: str) -> ResolvedAnalysis:
    """An analysis block with its nulls spelt out for these models. Raises UserError that begins with `where`."""
    try:
        read = Analysis.model_validate_json(json.dumps(block)).filled_in(models)
        if not LOWEST <= read.verdict_level <= HIGHEST:
            words = f"from {LOWEST} to {HIGHEST}, also shared by all baselines"
            raise Mistake("analysis.confidence", read.confidence, words)
        return read
    except Mistake as mistake:
        raise UserError(f"{where}: {mistake.key}: found {shown(mistake.found)}; allowed: {mistake.allowed}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, ("analysis", *first["loc"])))
        allowed = first["msg"].removeprefix("Input should be ")
        raise UserError(f"{where}: {key}: found {shown(first['input'])}; allowed: {allowed}") from None


def used(launches: Sequence[Launch], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The analysis block of the last launch, with `overrides`; another candidate has all other models as baselines."""
    others = {"baselines": None} if overrides.get("candidate") else {}
    return {**launches[-1].config["analysis"], **others, **overrides}


def compare(launches: Sequence[Launch], block: Mapping[str, Any], models: Sequence[str]) -> Preregistration:
    """What the first launch declared against the `block` used and `models`, those of the whole study.

    A null candidate or list of baselines stands for the models of its own launch, so both sides are filled in before
    they are compared: a model that comes later changes them.
    """
    first = launches[0]
    stored = first.config["analysis"]
    declared = read(stored, first.models, "study.json: first launch").model_dump(mode="json")
    made = read(block, models, "study.json").model_dump(mode="json")
    deviations = [
        Deviation(key=key, declared=declared[key], used=made[key])
        for key in sorted(made)
        if _comparable(key, declared[key]) != _comparable(key, made[key])
    ]
    if sha256(stored) != first.analysis_sha256:
        key = "hash of the block stored with the first launch"
        deviations.append(Deviation(key=key, declared=first.analysis_sha256, used=sha256(stored)))
    deviations += _added(launches)
    return Preregistration(
        declared_sha256=first.analysis_sha256,
        used_sha256=sha256(block),
        as_declared=not deviations,
        deviations=tuple(deviations),
    )


def _comparable(key: str, value: Any) -> object:  # noqa: ANN401
    """The order of baselines changes no number."""
    return sorted(value) if key == "baselines" else value


def _added(launches: Sequence[Launch]) -> Iterator[Deviation]:
    """What later launches planned beyond the first: items of lists; of a random search or factorial the whole of it."""
    for key in GROWING:
        declared = launches[0].config.get(key)
        known, new = _items(declared), []
        for launch in launches[1:]:
            new += [item for item in _items(launch.config.get(key)) if item not in known and item not in new]
        if new:
            yield Deviation(key=key, declared=declared, used=new, added=True)


def _items(value: Any) -> list[object]:  # noqa: ANN401
    if isinstance(value, int):
        return list(range(value))
    return [value] if isinstance(value, Mapping) else list(value or [])
