"""What a reader must know before quoting a number: the warnings of findings.json, the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from analysis import text
from analysis.findings.preregistration import Preregistration
from analysis.findings.schema import Findings
from analysis.frames import Frames
from analysis.grid import independent
from analysis.stats.choice import Choice

NAMED = 3
"""Unusable files that are named; the page names them all."""


def cautions(frames: Frames, choices: Mapping[str, Choice], declared: Preregistration) -> Iterator[str]:
    """One sentence each: of the pre-registration, of runs that are absent, of each model's choice, of the seeds."""
    yield from (f"the analysis made is not the one declared: {d.words}" for d in declared.deviations)
    yield from _absent(frames)
    for model, choice in choices.items():
        yield from _choice(frames, model, choice)
    if not independent(frames.runs):
        yield (
            "the seeds are a factorial: runs share initial weights or batch orders, so they are not independent "
            "and intervals over seeds are too short; the components of variance are what this design is for"
        )


def partial(findings: Findings) -> Iterator[str]:
    """One sentence for each baseline whose interval over seeds and digits rests on fewer pairs than the gap."""
    for c in findings.comparisons:
        if c.digits.n < c.pairs:
            yield f"{c.baseline}: predictions are there of {text.of(c.digits.n, c.pairs)} pairs that trained"


def _absent(frames: Frames) -> Iterator[str]:
    states = frames.runs["state"]
    failed, missing = int((states == "failed").sum()), int((states == "missing").sum())
    if failed or missing:
        of = text.of(failed + missing, len(states))
        yield f"{of} planned runs have no outcome: {failed} failed, {missing} missing"
    if aside := len(frames.set_aside):
        yield f"{aside} planned runs of another recipe or of an older model source are set aside and enter no number"
    if problems := frames.problems:
        names = ", ".join(p.path for p in problems[:NAMED]) + (", …" if len(problems) > NAMED else "")
        yield f"{len(problems)} unusable files of the ledger enter no number: {names}"


def _choice(frames: Frames, model: str, choice: Choice) -> Iterator[str]:
    chosen = choice.mean
    if chosen.learning_rate is None:
        yield f"{model} has no run with an outcome, so no learning rate could be chosen for it"
        return
    runs = frames.runs[frames.runs["model"] == model]
    planned = runs["learning_rate"].value_counts().sort_index()
    if not runs.loc[runs["learning_rate"] == chosen.learning_rate, "trained"].any():
        yield f"{model} learned at no learning rate: {chosen.learning_rate:g} stands for all of them"
    elif chosen.at_edge and len(chosen.n) > 1:
        yield f"{model} does best at {chosen.learning_rate:g}, an edge of the grid: a better rate may lie outside"
    if len(set(chosen.n)) > 1:
        counts = pd.Series(chosen.n, index=planned.index)
        others = ", ".join(f"{n} at {rate:g}" for rate, n in counts.drop(chosen.learning_rate).items())
        yield (
            f"{model}'s learning rate was chosen from unequal numbers of runs: "
            f"{text.of(chosen.n[chosen.index], int(planned[chosen.learning_rate]))} at {chosen.learning_rate:g}, "
            f"the one chosen, {others}"
        )
