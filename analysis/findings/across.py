"""One comparison across studies: in which recipes and datasets the sign of a gap holds, and its size. Pools nothing."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import permutations
from statistics import fmean, median
from typing import Any

from analysis import text
from analysis.findings.schema import Comparison, Findings
from analysis.stats.estimate import Basis, Estimate, Frozen
from analysis.stats.prediction import prediction_interval
from study.errors import UserError

OF_DATASET = ("pixel_mean", "pixel_sd")

FORMAT = 2
"""Version of across.json; it goes up when a key changes its meaning or goes away.

2: the candidate and baseline of a group are what the models are made of.
"""


class StudyGap(Frozen):
    """The gap to one baseline in one study."""

    study: str
    """Name of the study, with its place where two have the same name."""
    dataset: str
    """Name of the dataset, or its folder."""
    dataset_sha256: str
    """Hash of its files."""
    recipe: Mapping[str, str]
    """What of the recipe is not the same in all studies: key → value."""
    candidate: str
    """Model whose advantage is measured."""
    baseline: str
    """Model compared with."""
    made_of: tuple[str, str]
    """What candidate and baseline are made of, a built-in model or the user's import path, by which studies are put
    together; their names where the study compares several models made of one."""
    n_parameters: tuple[int, int]
    """Trainable parameters of candidate and baseline."""
    candidate_rate: float | None
    """The candidate's selected learning rate."""
    baseline_rate: float | None
    """The baseline's selected learning rate."""
    seeds: Estimate
    """The gap over seeds: that study's test images."""
    median: float | None
    """Median of the paired differences."""
    images: Estimate
    """The gap over seeds and test images."""
    clusters: int | None
    """Clusters in which the test images come; null where nobody says, and they are taken as independent."""
    unqualified: bool
    """Whether the study calls one of the two the more accurate, for both populations."""
    equivalent: bool
    """Whether it calls them practically equivalent, for both populations."""
    scored_at_chance: Estimate | None = None
    """The gap with runs that did not learn scored at chance; null where all at the selected rates learned."""


class Group(Frozen):
    """All studies of the same two models on the same dataset, whatever arguments and names a study gives the models."""

    dataset: str
    """Name of the dataset."""
    candidate: str
    """What the model whose advantage is measured is made of; see `made_of`."""
    baseline: str
    """What the model compared with is made of."""
    ahead: tuple[str, ...]
    """Studies in which the candidate was ahead on average."""
    behind: tuple[str, ...]
    """Studies in which it was not."""
    undecided: tuple[str, ...]
    """Those of both in which the study calls neither model the more accurate, nor the two equivalent."""
    equivalent: tuple[str, ...]
    """Those of both in which it calls them practically equivalent."""
    unanswered: tuple[str, ...]
    """Studies without a gap."""
    prediction: Estimate
    """Mean of the recipes' gaps, each counted once, and the interval in which a further recipe's gap on these test
    images is expected, if it were drawn as these were: a description, for recipes are chosen. Studies of the same
    recipe and sizes are averaged first."""
    sentence: str
    """The group in words."""


class Across(Frozen):
    """Everything said across studies."""

    format: int = FORMAT
    """Version of this schema."""
    gaps: tuple[StudyGap, ...]
    """One for each study and baseline, in the order given."""
    groups: tuple[Group, ...]
    """One for each dataset and pair of models."""
    without: tuple[str, ...] = ()
    """Studies that compare no models, and so have no gap."""

    def to_json(self) -> str:
        """The text of across.json: the same bytes for the same findings."""
        return self.model_dump_json(indent=1) + "\n"


def across(studies: Mapping[str, Findings]) -> Across:
    """Set the gaps of several studies side by side; `studies` by where each was read from.

    Each study is analysed by its own settings. Nothing is pooled: the one number made of several studies is the
    prediction interval of `Group`. Raises UserError where one study has no runs but those of another: it would count
    twice.
    """
    _see_that_none_counts_twice(studies)
    named = dict(zip(_names(studies), studies.values(), strict=True))
    compared = {name: found for name, found in named.items() if found.comparisons}
    recipes = _differences([found.about.recipe for found in compared.values()])
    gaps = [
        _gap(name, found, comparison, recipe)
        for (name, found), recipe in zip(compared.items(), recipes, strict=True)
        for comparison in found.comparisons
    ]
    kinds = dict.fromkeys((gap.dataset_sha256, gap.made_of) for gap in gaps)
    groups = [_group([g for g in gaps if (g.dataset_sha256, g.made_of) == kind]) for kind in kinds]
    without = tuple(name for name in named if name not in compared)
    return Across(gaps=tuple(gaps), groups=tuple(groups), without=without)


def _see_that_none_counts_twice(studies: Mapping[str, Findings]) -> None:
    """A folder and its archive hold the same runs, and one that has grown since holds those of its older archive."""
    runs = {source: {run for ids in found.run_sets.values() for run in ids} for source, found in studies.items()}
    for one, other in permutations(runs, 2):
        if runs[one] and runs[one] <= runs[other]:
            raise UserError(f"across: found all runs of {one!r} in {other!r} too; allowed: every study once")


def _names(studies: Mapping[str, Findings]) -> list[str]:
    times = Counter(found.about.name for found in studies.values())
    return [
        found.about.name if times[found.about.name] == 1 else f"{found.about.name} ({source})"
        for source, found in studies.items()
    ]


def _made_of(found: Findings) -> dict[str, str]:
    """What each model compared is made of; its name where another is made of the same.

    All go by their names where one has the name of what another is made of: no study has two gaps in a group.
    """
    compared = [found.about.settings.candidate, *found.about.settings.baselines]
    made_of = {model.name: model.constructor or model.name for model in found.about.models}
    times = Counter(made_of[name] for name in compared)
    kinds = {name: made_of[name] if times[made_of[name]] == 1 else name for name in compared}
    return kinds if len(set(kinds.values())) == len(kinds) else {name: name for name in compared}


def _differences(recipes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Of each recipe the keys whose values are not the same in all; that a key is not there is a value too.

    What pixels are normalised by differs from dataset to dataset: it is told where one dataset has several.
    """
    shown = [{key: _plain(value) for key, value in recipe.items() if key != "dataset_sha256"} for recipe in recipes]
    keys = dict.fromkeys(key for recipe in shown for key in recipe)
    files = [recipe.get("dataset_sha256") for recipe in recipes]

    def differs(key: str) -> bool:
        values = {
            (file if key in OF_DATASET else None, recipe.get(key)) for file, recipe in zip(files, shown, strict=True)
        }
        return len(values) > len({file for file, _ in values})

    differing = [key for key in keys if differs(key)]
    return [{key: recipe[key] for key in differing if key in recipe} for recipe in shown]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _gap(study: str, found: Findings, comparison: Comparison, recipe: Mapping[str, str]) -> StudyGap:
    # The run sets are keys of the study's own findings, and stand for nothing here.
    seeds, images = (e.changed(runs=None) for e in (comparison.seeds.mean, comparison.images))
    made_of, candidate = _made_of(found), found.about.settings.candidate
    sizes = {model.name: model.n_parameters for model in found.about.models}
    return StudyGap(
        study=study,
        dataset=found.about.dataset,
        dataset_sha256=found.about.dataset_sha256,
        recipe=recipe,
        candidate=candidate,
        baseline=comparison.baseline,
        made_of=(made_of[candidate], made_of[comparison.baseline]),
        n_parameters=(sizes[candidate], sizes[comparison.baseline]),
        candidate_rate=comparison.candidate_rate,
        baseline_rate=comparison.baseline_rate,
        seeds=seeds,
        median=median(comparison.seeds.differences) if comparison.seeds.differences else None,
        images=images,
        clusters=found.about.clusters.count if found.about.clusters else None,
        unqualified=comparison.unqualified,
        equivalent=comparison.equivalent,
        scored_at_chance=comparison.scored_at_chance and comparison.scored_at_chance.changed(runs=None),
    )


def _group(gaps: Sequence[StudyGap]) -> Group:
    first = gaps[0]
    values = {gap.study: gap.seeds.estimate for gap in gaps if gap.seeds.estimate is not None}
    recipes: dict[object, list[float]] = defaultdict(list)
    for gap in gaps:
        own = recipes[tuple(sorted(gap.recipe.items())), gap.n_parameters]
        own += [] if gap.seeds.estimate is None else [gap.seeds.estimate]
    means = [fmean(of_one) for of_one in recipes.values() if of_one]
    basis = Basis(method="mean", n=len(means), planned=len(recipes), unit="recipes", role="descriptive")
    levels = {gap.seeds.level for gap in gaps if gap.seeds.level is not None}
    if len(levels) > 1:
        prediction = basis.declines("the studies' intervals have different levels")
    else:
        prediction = prediction_interval(means, next(iter(levels), 0.95), basis, (-1.0, 1.0))
    candidate, baseline = first.made_of
    group = Group(
        dataset=first.dataset,
        candidate=candidate,
        baseline=baseline,
        ahead=tuple(study for study, value in values.items() if value > 0),
        behind=tuple(study for study, value in values.items() if value <= 0),
        undecided=tuple(
            gap.study for gap in gaps if gap.study in values and not gap.unqualified and not gap.equivalent
        ),
        equivalent=tuple(gap.study for gap in gaps if gap.equivalent),
        unanswered=tuple(gap.study for gap in gaps if gap.study not in values),
        prediction=prediction,
        sentence="",
    )
    at_chance = {gap.study: gap.scored_at_chance.estimate for gap in gaps if gap.scored_at_chance is not None}
    return group.model_copy(update={"sentence": _sentence(group, values, at_chance)})


def _sentence(group: Group, values: Mapping[str, float], at_chance: Mapping[str, float | None]) -> str:
    """What the studies say together, and no more than the weakest of them."""
    models = f"{group.candidate} against {group.baseline} on {group.dataset}"
    if not values:
        return f"{models}: none of {len(group.unanswered)} studies has an answer."
    (lowest, least), *_, (highest, most) = sorted([*values.items()] * 2, key=lambda item: item[1])
    undecided = [
        f"{words} in {text.listed(studies)}"
        for words, studies in (("practically equivalent", group.equivalent), ("undecided", group.undecided))
        if studies
    ]
    if len(values) == 1:
        said = [f"{models}: one study, a gap of {text.points(least)} percentage points ({lowest})", *undecided]
    else:
        range_ = f"gaps from {text.points(least)} ({lowest}) to {text.points(most)} percentage points ({highest})"
        said = [f"{models}: {_sign(group)}; {range_}", *undecided]
    if at_chance:
        others = text.listed(f"{text.points(value)} ({study})" for study, value in at_chance.items())
        said.append(f"with runs that did not learn scored at chance {others}")
    if group.unanswered:
        said.append(f"no answer from {text.listed(group.unanswered)}")
    if group.prediction.low is not None:
        limits = text.points_interval(group.prediction.low, group.prediction.high)
        level = f"{text.level(group.prediction.level)} prediction interval"
        drawn = f"these {group.prediction.n}" if group.prediction.n < len(values) else "these"
        said.append(f"a further recipe, drawn as {drawn} were, would be expected at {limits} on these images ({level})")
    return f"{'; '.join(filter(None, said))}."


def _sign(group: Group) -> str:
    """In which studies the candidate is ahead; that it depends on the recipe only where studies decide both ways."""
    n = len(group.ahead) + len(group.behind)
    every = "both" if n == 2 else f"all {n}"
    if not group.behind:
        return f"ahead in {every} studies"
    if not group.ahead:
        return f"behind or level in {every} studies"
    fewer, where = min(("ahead", group.ahead), ("behind or level", group.behind), key=lambda side: len(side[1]))
    counted = f"{fewer} in {len(where)} of {n} studies ({text.listed(where)})"
    both = all(set(side) - {*group.undecided, *group.equivalent} for side in (group.ahead, group.behind))
    return f"the sign depends on the recipe, {counted}" if both else f"the sign is not settled, {counted}"
