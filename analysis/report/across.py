"""What the command `across` shows: a sentence for each pair of models, a table, a forest plot."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from analysis import text
from analysis.findings.across import OF_DATASET, Across, StudyGap
from analysis.report import phrases, table, terminal
from analysis.report.figures import forest
from analysis.report.latex import as_latex
from analysis.report.table import Cell, Rows, Table, number, rate, words

TITLE = "The same comparison across studies"


def tabulated(found: Across) -> Table | None:
    """One row for each study and baseline; None where no study has two models."""
    rows = Rows()
    departures = _departures({gap.study: gap for gap in found.gaps}.values())
    for gap in found.gaps:
        digits = text.point_digits(gap.seeds.low, gap.seeds.high)
        rows.add(
            Study=words("study", gap.study),
            Dataset=words("dataset", gap.dataset),
            Recipe=words(
                "recipe", ", ".join([*_renamed(gap), *departures[gap.study], *_size(gap, found)]) or text.DASH
            ),
            Candidate=words("candidate", gap.made_of[0]),
            Baseline=words("baseline", gap.made_of[1]),
            Rates=words("rates", f"{rate(gap.candidate_rate)} / {rate(gap.baseline_rate)}"),
            Gap=rows.estimate("gap", gap.seeds, text.points(gap.seeds.estimate, digits)),
            Median=number("median", gap.median, text.points(gap.median, digits)),
            Over_seeds=number("over_seeds", gap.seeds.low, text.points_interval(gap.seeds.low, gap.seeds.high)),
            And_images=rows.estimate(
                "over_seeds_and_images", gap.images, text.points_interval(gap.images.low, gap.images.high)
            ),
            Images=Cell(phrases.images(gap.clusters), {"clusters": gap.clusters}, number=False),
            Level=number("level", gap.seeds.level, text.level(gap.seeds.level)),
            Pairs=words("pairs", text.of(gap.seeds.n, gap.seeds.planned)),
            Decided=words("decided", "yes" if gap.unqualified else "equivalent" if gap.equivalent else "no"),
        )
    rows.captioned(
        "Test accuracy of the candidate minus that of the baseline, in percentage points, each at its selected "
        "learning rate, in every study by itself; nothing is pooled. Recipe: the study's names of the two models where "
        "they are others, and what is not as in most of the studies, with the models' parameters. Gap: the mean over "
        "pairs, beside their median. Intervals over seeds (that study's test images) "
        "and over seeds and test images. Images: in how many clusters these come, such as those of one writer; where "
        "they are taken as independent, the second interval is probably too short. Decided: whether the study calls "
        "one of the two the more accurate, for both populations: by intervals at the level that its baselines share, "
        "and by the exact test; or calls them practically equivalent."
    )
    return rows.table("across", TITLE) if rows.cells else None


def _renamed(gap: StudyGap) -> list[str]:
    """The study's own names of its models, where these are not the names of what they are made of."""
    return [name for name, source in zip((gap.candidate, gap.baseline), gap.made_of, strict=True) if name != source]


def _size(gap: StudyGap, found: Across) -> list[str]:
    """How many parameters the two models have, where that is not as in most studies of the same two."""
    alike = [g.n_parameters for g in found.gaps if g.made_of == gap.made_of]
    usual = 2 * alike.count(gap.n_parameters) > len(alike)
    return [] if usual else [f"{gap.n_parameters[0]:,} against {gap.n_parameters[1]:,} parameters"]


def _departures(gaps: Iterable[StudyGap]) -> dict[str, list[str]]:
    """Of each study what its recipe has that more than half of the studies have not, from one gap of each."""
    gaps = list(gaps)

    def usual(gap: StudyGap, key: str) -> bool:
        alike = [g for g in gaps if key not in OF_DATASET or g.dataset_sha256 == gap.dataset_sha256]
        return 2 * sum(g.recipe.get(key) == gap.recipe[key] for g in alike) > len(alike)

    return {gap.study: [f"{key}: {value}" for key, value in gap.recipe.items() if not usual(gap, key)] for gap in gaps}


def write(found: Across, folder: Path) -> None:
    """Write across.json, the table in three forms, the forest plot, and across.md, which shows them together."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "across.json").write_text(found.to_json(), encoding="utf-8")
    parts = [f"# {TITLE}", *map(text.markdown, _sentences(found))]
    if (shown := tabulated(found)) is not None:
        table.write([shown], folder)
        (folder / f"{shown.name}.tex").write_text(as_latex(shown), encoding="utf-8")
        forest.draw(found, folder)
        parts += [f"![{TITLE}](forest.svg)", text.markdown(forest.caption(found)), table.as_markdown(shown)]
    (folder / "across.md").write_text("\n\n".join(parts).rstrip() + "\n", encoding="utf-8")


def show(found: Across, console: Console) -> None:
    """Print the sentences."""
    for sentence in _sentences(found):
        terminal.say(console, sentence)
        terminal.say(console)


def _sentences(found: Across) -> list[str]:
    """What each group says, and which studies are in none."""
    said = [group.sentence for group in found.groups]
    if found.without:
        said.append(
            f"No gap from {text.listed(found.without)}, which compare{'s' * (len(found.without) == 1)} no models."
        )
    return said
