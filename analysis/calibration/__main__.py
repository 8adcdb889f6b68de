"""Do the intervals cover and do the tests keep their level? `python -m analysis.calibration` asks simulated truth.

What the replications leave unresolved is simulated anew, MORE times as often. Each interval is scored against its own
truth: those over seeds against the gap on this test set, those over seeds and images against the gap on new images.
The interval over seeds is scored against the gap on new images too, which it does not promise to cover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from statsmodels.stats.proportion import proportion_confint

from analysis.calibration import coverage
from analysis.calibration.coverage import FAST, SEEDS, SIGN_FLIP, SLOW, Hits, Only, T
from analysis.calibration.fit import fit
from analysis.calibration.simulation import IMAGES, SCENARIOS, TIES, UNEVEN, Scenario
from analysis.frames import load
from analysis.report.figures import calibration as figures
from analysis.report.figures import style
from study.errors import UserError

REPLICATIONS = 20_000
MORE = 4

THIS, NEW = "this test set", "new images"

REACHES = (0.935, 0.965)
"""Coverage that counts as 95%."""

SIZE = (0.035, 0.055)
"""A 5% test must reject a true null hypothesis less often than the second; below the first it is conservative."""


class Score(BaseModel):
    """How often an interval covered its truth, or a test rejected a true null hypothesis."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scenario: str
    seeds: int
    method: str
    target: str
    quantity: str
    """coverage, or size."""
    replications: int
    """Replications that gave an interval or a p-value ..."""
    declined: int
    """... and those that were declined, scored as neither."""
    value: float | None
    low: float | None
    """95% Monte-Carlo limits (Clopper–Pearson)."""
    high: float | None
    label: str
    """reaches, fails, conservative or unresolved; "no promise" where the interval is not made for that target."""


def label(quantity: str, low: float, high: float) -> str:
    """The label of a coverage or a size from its Monte-Carlo limits."""
    if quantity == "size":
        if high < SIZE[1]:
            return "conservative" if high < SIZE[0] else "reaches"
        return "fails" if low > SIZE[1] else "unresolved"
    if low > REACHES[0] and high < REACHES[1]:
        return "reaches"
    if low > REACHES[1]:
        return "conservative"
    return "fails" if high < REACHES[0] else "unresolved"


def score(scenario: str, seeds: int, method: str, target: str, hits: NDArray[np.float64]) -> Score:
    """The score of `hits` [replication], as coverage.py defines them."""
    given = hits[~np.isnan(hits)]
    quantity = "size" if method == SIGN_FLIP else "coverage"
    found: dict[str, Any] = dict(
        scenario=scenario,
        seeds=seeds,
        method=method,
        target=target,
        quantity=quantity,
        replications=given.size,
        declined=hits.size - given.size,
    )
    if not given.size:
        return Score(value=None, low=None, high=None, label="unresolved", **found)
    low, high = map(float, proportion_confint(given.sum(), given.size, 0.05, method="beta"))
    promised = (method, target) != (T, NEW)
    verdict = label(quantity, low, high) if promised else "no promise"
    return Score(value=float(given.mean()), low=low, high=high, label=verdict, **found)


Layer = Callable[[int, Only], Hits]
"""Simulates so many replications of what is asked for."""


def calibrate(
    replications: int,
    seed: int,
    scenarios: Iterable[Scenario] = SCENARIOS,
    ties: Iterable[float] = (),
    processes: int = 1,
) -> list[Score]:
    """All scores, those of the luck of selection (`ties`: coverage.with_selection) last.

    Every scenario draws from its own stream, so that the number of processes changes nothing.
    """
    asked: list[Scenario | float] = [*scenarios, *ties]
    work = asked, repeat(replications), np.random.SeedSequence(seed).spawn(len(asked))
    if processes == 1:
        return list(chain.from_iterable(map(_scores, *work)))
    with ProcessPoolExecutor(processes) as pool:
        return list(chain.from_iterable(pool.map(_scores, *work)))


def _scores(asked: Scenario | float, replications: int, stream: np.random.SeedSequence) -> list[Score]:
    streams = [np.random.default_rng(s) for s in stream.spawn(3)]
    if not isinstance(asked, Scenario):
        apart = f"images, {asked:g} SD{'s' if asked > 1 else ''} apart on test images" if asked else "and test images"
        name = f"rates tie on validation {apart}"
        return _layer(
            name, THIS, lambda k, only: coverage.with_selection(asked, few(k), streams[0], only), replications
        )
    main, other = coverage.primary(asked, band=asked == SCENARIOS[0]), coverage.sensitivity(asked)
    layers: list[tuple[str, Layer]] = [
        (THIS, lambda k, only: coverage.on_this_test_set(asked, main, k, streams[0], only)),
        (NEW, lambda k, only: coverage.on_new_images(asked, few(k), streams[1], only)),
        (THIS, lambda k, only: coverage.on_this_test_set(asked, other, k, streams[2], only)),
    ]
    return [s for target, layer in layers for s in _layer(asked.name, target, layer, replications)]


def _layer(name: str, target: str, layer: Layer, replications: int) -> list[Score]:
    """The scores of a scenario for one target, after what is unresolved was simulated anew."""
    scores = {key: score(name, *key, target, hits) for key, hits in layer(replications, None).items()}
    unresolved = {key for key, s in scores.items() if s.label == "unresolved" and s.value is not None}
    if unresolved:
        again = layer(MORE * replications, unresolved)
        scores |= {key: score(name, *key, target, hits) for key, hits in again.items()}
    return list(scores.values())


def few(replications: int) -> int:
    """Replications of what is slow."""
    return max(1, replications // SLOW)


def markdown(
    scores: list[Score], replications: int, seed: int, date: str | None = None, figure: str = "calibration"
) -> str:
    """The scores as a table a scenario a row, below the figure of that name."""
    lines = [
        "# Calibration",
        "",
        f"Coverage of 95% intervals and size of 5% tests in simulated studies of {IMAGES:,} test images; "
        f"{replications:,} replications ({replications // SLOW:,} for BCa, the band, selection and new images), "
        f"seed {seed}{f', {date}' if date else ''}. "
        f"Cells that these left unresolved were simulated anew, {MORE} times as often, and are marked ×{MORE}.",
        "",
        f"*Reaches*: the whole 95% Monte-Carlo interval lies inside {100 * REACHES[0]:g} to {100 * REACHES[1]:g}% "
        f"(tests: below {100 * SIZE[1]:g}%). *Fails*: wholly outside, and too low (tests: too high). *Conservative*: "
        f"wholly above (tests: below {100 * SIZE[0]:g}%). *Unresolved*: neither, even so. "
        "*No promise*: the interval is not made for that target.",
        "",
        f"![Coverage and size by scenario, method and number of seeds]({figure}.svg)",
        "",
    ]
    frame = pd.DataFrame([s.model_dump() for s in scores])
    frame["more"] = frame["replications"] + frame["declined"] > np.where(
        (frame["target"] == NEW) | ~frame["method"].isin(FAST), replications // SLOW, replications
    )
    for (target, quantity, method), part in frame.groupby(["target", "quantity", "method"], sort=False):
        lines += [f"## {method[0].upper()}{method[1:]}: {quantity}, {target}", ""]
        lines += ["| scenario | " + " | ".join(f"n = {n}" for n in SEEDS) + " |", "|---" * (len(SEEDS) + 1) + "|"]
        for name, row in part.groupby("scenario", sort=False):
            cells = row.set_index("seeds")
            lines.append(f"| {name} | " + " | ".join(_cell(cells.loc[n]) for n in SEEDS) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(entry: pd.Series) -> str:
    if entry["replications"] == 0:
        return "declined"
    text = f"{100 * entry['value']:.1f}% ({100 * entry['low']:.1f}–{100 * entry['high']:.1f}) {entry['label']}"
    text += f" ×{MORE}" if entry["more"] else ""
    return text + (f", {entry['declined']:,} declined" if entry["declined"] else "")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--replications", type=click.IntRange(100), default=REPLICATIONS, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--out",
    metavar="PREFIX",
    default="calibration",
    show_default=True,
    help="Writes PREFIX.csv, PREFIX.md and the figure.",
)
@click.option("--date", help="Printed in the table, which knows no clock.")
@click.option("--ledger", metavar="DIR_OR_ZIP", help="Adds scenarios fitted to a study's own runs.")
def main(replications: int, seed: int, processes: int, out: str, date: str | None, ledger: str | None) -> None:
    """Score every interval and test of the analysis against simulated truth."""
    try:
        scenarios = [*SCENARIOS, *(fit(load(ledger)) if ledger else []), *UNEVEN]
    except UserError as error:
        raise click.ClickException(str(error)) from None
    scores = calibrate(replications, seed, scenarios, TIES, processes)
    table = pd.DataFrame([s.model_dump() for s in scores])
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(f"{out}.csv", index=False, lineterminator="\n")
        Path(f"{out}.md").write_text(markdown(scores, replications, seed, date, Path(out).name), encoding="utf-8")
        bands = {"coverage": REACHES, "size": (0.0, SIZE[1])}
        with style.applied():
            style.save(figures.figure(table, bands), Path(out).parent, Path(out).name)
    except OSError as error:
        raise click.ClickException(f"{out}: cannot be written: {error.strerror}") from None
    click.echo(f"{out}.csv, {out}.md: " + ", ".join(f"{n} {name}" for name, n in table["label"].value_counts().items()))


if __name__ == "__main__":
    main()
