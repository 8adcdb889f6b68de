"""Do the intervals cover and do the tests keep their level? `python -m analysis.calibration` asks simulated truth.

Each interval is scored against its own truth: those over seeds against the gap on this test set, those over seeds and
digits against the gap on new digits. The interval over seeds is scored against the gap on new digits too, which it
does not promise to cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, repeat
from pathlib import Path

import click
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from analysis import simulation, sweep
from analysis.digits import error_from
from analysis.gap import sign_flip
from analysis.simulation import DIGITS, SCENARIOS, Scenario

LEVEL = 0.95
SEEDS = (5, 10, 20, 50)
REPLICATIONS = 20_000
SHARE = 5
"""Layers that are slow (BCa, band, digits) are replicated this many times less."""

TEST_SETS = 10
RESAMPLES = 999
RATES = 5
"""Learning rates under the simultaneous band."""

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


def score(
    scenario: str,
    seeds: int,
    method: str,
    target: str,
    hits: ArrayLike,
    *,
    quantity: str = "coverage",
    promised: bool = True,
) -> Score:
    """The score of `hits` [replication]: 1 where the interval covered or the test rejected, 0 where not, NaN declined."""
    hits = np.asarray(hits, float)
    given = hits[~np.isnan(hits)]
    found = dict(
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
    verdict = label(quantity, low, high) if promised else "no promise"
    return Score(value=float(given.mean()), low=low, high=high, label=verdict, **found)


# the interval and the test over seeds, on this test set


def seed_layer(scenario: Scenario, replications: int, rng: np.random.Generator) -> Iterator[Score]:
    """Scores of what is said over seeds. Replications are spread over TEST_SETS test sets."""
    hits: dict[tuple[int, str], list[NDArray]] = {}
    each = max(1, replications // TEST_SETS)
    for _ in range(TEST_SETS):
        sides = scenario.digits(rng)
        models = scenario.candidate, scenario.baseline
        truth = np.subtract(*map(simulation.accuracy_here, models, sides))
        counts = list(map(simulation.right_counts, models, sides))
        for n in SEEDS:
            k = np.subtract(*(simulation.draw(p, (each, n), rng) for p in counts))
            trained = rng.random((each, n)) < (1 - scenario.collapse) ** 2
            found = {"t over seeds": t_covers(k / DIGITS, trained, truth)}
            few = slice(max(1, each // SHARE))
            if not scenario.collapse:
                found["BCa bootstrap over seeds"] = bca_covers(k[few] / DIGITS, truth, rng)
            if scenario.identical:
                found["sign-flip test"] = sign_flip_rejects(k, trained)
            if scenario == SCENARIOS[0]:
                rates = np.subtract(*(simulation.draw(p, (k[few].shape[0], n, RATES), rng) for p in counts))
                found[f"simultaneous band over {RATES} rates"] = band_covers(rates, truth * DIGITS, rng)
            for method, values in found.items():
                hits.setdefault((n, method), []).append(values)
    for (n, method), values in hits.items():
        quantity = "size" if method.endswith("test") else "coverage"
        yield score(scenario.name, n, method, "this test set", np.concatenate(values), quantity=quantity)


def t_covers(d: NDArray, trained: NDArray, truth: float) -> NDArray[np.float64]:
    """Whether the t interval of each row of `d` [replication, seed] covers, from the pairs that `trained`."""
    n = trained.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(trained, d, 0).sum(1) / n
        variance = (np.where(trained, d - mean[:, None], 0) ** 2).sum(1) / (n - 1)
    lowest = np.where(trained, d, np.inf).min(1)
    highest = np.where(trained, d, -np.inf).max(1)
    half = stats.t.ppf((1 + LEVEL) / 2, np.maximum(n - 1, 1)) * np.sqrt(variance / n)
    return np.where((n > 1) & (highest > lowest), np.abs(mean - truth) <= half, np.nan)


def bca_covers(d: NDArray, truth: float, rng: np.random.Generator, batch: int = 50) -> NDArray[np.float64]:
    """Whether the BCa interval of each row of `d` [replication, seed] covers; rows of a batch share their draws."""
    hits = []
    for start in range(0, len(d), batch):
        rows = d[start : start + batch]
        with np.errstate(all="ignore"):
            limits = stats.bootstrap(
                (rows,), np.mean, axis=-1, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", rng=rng
            ).confidence_interval
        given = limits.low < limits.high
        hits.append(np.where(given, (limits.low <= truth) & (truth <= limits.high), np.nan))
    return np.concatenate(hits)


def sign_flip_rejects(k: NDArray, trained: NDArray) -> NDArray[np.float64]:
    """Whether the sign-flip test of each row of `k` [replication, seed] rejects."""
    return np.array([sign_flip(row[own])[0] <= 1 - LEVEL for row, own in zip(k, trained, strict=True)], float)


def band_covers(k: NDArray, truth: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Whether the simultaneous band covers at all rates; `k` [replication, seed, rate]."""
    n = k.shape[1]
    hits = []
    for rows in k:
        mean = rows.mean(0)
        residuals = rows - mean
        error = rows.std(0, ddof=1) / np.sqrt(n)
        if not error.all():
            hits.append(np.nan)
            continue
        critical = sweep.critical_value(residuals, np.ones(rows.shape, bool), LEVEL, int(rng.integers(2**31)))
        hits.append(float((np.abs(mean - truth) <= critical * error).all()) if np.isfinite(critical) else np.nan)
    return np.array(hits)


# the intervals over seeds and digits, on new digits


def digit_layer(scenario: Scenario, replications: int, rng: np.random.Generator) -> Iterator[Score]:
    """Scores of what is said over seeds and digits, and of the interval over seeds on new digits.

    The replications with fewer seeds are the first rows of those with most.
    """
    hits: dict[tuple[int, str], list[float]] = {}
    for _ in range(replications):
        x = simulation.differences(scenario, SEEDS[-1], rng)
        for n in SEEDS:
            for method, hit in zip(METHODS, new_digits_covers(x[:n], DIGITS, scenario.gap), strict=True):
                hits.setdefault((n, method), []).append(hit)
    for (n, method), values in hits.items():
        yield score(scenario.name, n, method, "new digits", values, promised=method != METHODS[-1])


METHODS = ("crossed analysis of variance", "pigeonhole bootstrap (its exact variance)", "t over seeds")


def new_digits_covers(x: NDArray, digits: int, truth: float) -> tuple[float, float, float]:
    """Whether each of METHODS covers; `x` [seed, digit] without the digits, of `digits`, where all entries are 0."""
    seeds = len(x)
    ms_s, ms_d, ms_r = squares = sparse_mean_squares(x, digits)
    mean = float(x.sum()) / (seeds * digits)
    error, df = error_from(squares, seeds, digits)
    a, b = 1 - 1 / seeds, 1 - 1 / digits
    bootstrap = np.sqrt((a * ms_s + b * ms_d + a * b * ms_r) / (seeds * digits))
    over_seeds = np.sqrt(ms_s / digits / seeds)
    tail = (1 + LEVEL) / 2
    halves = stats.t.ppf(tail, df) * error, stats.norm.ppf(tail) * bootstrap, stats.t.ppf(tail, seeds - 1) * over_seeds
    return tuple(float(abs(mean - truth) <= half) if half > 0 else np.nan for half in halves)


def sparse_mean_squares(x: NDArray, digits: int) -> tuple[float, float, float]:
    """`digits.mean_squares` of `x` [seed, digit] and as many columns of zeros as make up `digits`, from sums alone."""
    seeds = len(x)
    rows, columns = x.sum(1, dtype=np.int64), x.sum(0, dtype=np.int64)
    correction = float(rows.sum()) ** 2 / (seeds * digits)
    ss_s = float(rows @ rows) / digits - correction
    ss_d = float(columns @ columns) / seeds - correction
    ss_r = float(np.count_nonzero(x)) - correction - ss_s - ss_d
    return ss_s / (seeds - 1), ss_d / (digits - 1), ss_r / ((seeds - 1) * (digits - 1))


# all of it


def calibrate(
    replications: int, seed: int, scenarios: Iterable[Scenario] = SCENARIOS, processes: int = 1
) -> list[Score]:
    """All scores. Every scenario draws from its own stream, so that the number of processes changes nothing."""
    scenarios = list(scenarios)
    streams = np.random.SeedSequence(seed).spawn(len(scenarios))
    work = scenarios, repeat(replications), streams
    if processes == 1:
        return list(chain.from_iterable(map(_scores, *work)))
    with ProcessPoolExecutor(processes) as pool:
        return list(chain.from_iterable(pool.map(_scores, *work)))


def _scores(scenario: Scenario, replications: int, stream: np.random.SeedSequence) -> list[Score]:
    over_seeds, over_digits = (np.random.default_rng(s) for s in stream.spawn(2))
    slow = max(1, replications // SHARE)
    return [*seed_layer(scenario, replications, over_seeds), *digit_layer(scenario, slow, over_digits)]


def markdown(scores: list[Score], replications: int, seed: int) -> str:
    """The scores as a table a scenario a row."""
    lines = [
        "# Calibration",
        "",
        f"Coverage of 95% intervals and size of 5% tests in simulated studies of {DIGITS:,} test digits; "
        f"{replications:,} replications ({replications // SHARE:,} for BCa, the band and new digits), seed {seed}.",
        "",
        f"*Reaches*: the whole 95% Monte-Carlo interval lies inside {100 * REACHES[0]:g} to {100 * REACHES[1]:g}% "
        f"(tests: below {100 * SIZE[1]:g}%). *Fails*: wholly outside, and too low (tests: too high). *Conservative*: "
        f"wholly above (tests: below {100 * SIZE[0]:g}%). *Unresolved*: neither; more replications would tell. "
        "*No promise*: the interval is not made for that target.",
        "",
    ]
    frame = pd.DataFrame([s.model_dump() for s in scores])
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
    return text + (f", {entry['declined']:,} declined" if entry["declined"] else "")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--replications", type=click.IntRange(100), default=REPLICATIONS, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True)
@click.option("--out", metavar="PREFIX", default="calibration", show_default=True, help="Writes PREFIX.csv, PREFIX.md.")
def main(replications: int, seed: int, processes: int, out: str) -> None:
    """Score every interval and test of the analysis against simulated truth."""
    scores = calibrate(replications, seed, processes=processes)
    table = pd.DataFrame([s.model_dump() for s in scores])
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(f"{out}.csv", index=False, lineterminator="\n")
        Path(f"{out}.md").write_text(markdown(scores, replications, seed), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{out}: cannot be written: {error.strerror}") from None
    click.echo(f"{out}.csv, {out}.md: " + ", ".join(f"{n} {name}" for name, n in table["label"].value_counts().items()))


if __name__ == "__main__":
    main()
