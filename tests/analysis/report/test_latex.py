"""The report for LaTeX: it compiles as it is, and no table or caption is wider or higher than the page."""

import re
import shutil

import pandas as pd
import pytest

from analysis import frames
from analysis.findings import build
from analysis.report import figures, latex, table
from tests import synthetic
from tests.latex import compiled

NASTY = r"my_pkg.nets:My<Net>&%_#$~^\{}|\"[x]--``"
LONG = "my_laboratory.experiments.convolutional:A_rather_long_name-of_a_network"
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    states = {("lenet5", 0.03, seed): "collapsed" for seed in range(8)} | {("mlp", 0.01, 2): "failed"}
    folder = synthetic.write(
        tmp_path_factory.mktemp("ledger"),
        seeds=8,
        n_test=400,
        states=states,
        analysis={
            "resamples": 100,
            "references": {"mlp": [{"source": "A & B, 50% off #1_x", "accuracy": 0.97, "note": "<other> input"}]},
        },
    )
    data = frames.load(folder)
    return build.collect(data), data


@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2])
def test_everything_compiles_and_fits(study, tmp_path, columns):
    figures.draw(*study, tmp_path / "figures")
    folder = tmp_path / "latex"
    written = [path.relative_to(folder).as_posix() for path in latex.write(*study, folder)]
    assert {"tables/gaps.tex", "tables/specifications.tex", "figures/gap.tex"} <= set(written)
    printed = compiled(folder, written, columns=columns)
    assert "A & B, 50% off #1_x" in printed
    assert "longtable" not in "".join((folder / name).read_text() for name in written)


def made(columns, rows, notes=(), name="mlp"):
    """A table of so many columns, one of them of prose, and rows."""
    collected = table.Rows()
    for row in range(rows):
        cells = {f"Number {k}": table.number(f"n{k}", row, f"{row}.{k}") for k in range(columns)}
        collected.add(
            Name=table.words("name", name), **cells, Method=table.words("m", "mean of paired differences " * 3)
        )
    collected.remarks += notes
    return collected.captioned(f"What {name} does.").table("example", "An example")


@needs_latex
@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2])
def test_tables_of_any_size_and_names_of_any_kind_fit(tmp_path, columns):
    tables = {
        "small": made(1, 3),
        "wide": made(14, 5),
        "long": made(3, 200, notes=["A note that says a little more. " * 8] * 12),
        "nasty": made(2, 2, name=NASTY),
        "named": made(2, 2, name=LONG),
        "starred": made(10, 2, name="model_number_1 ★ and whatever follows"),
        "crowded": made(12, 2, name="model_number_2"),
    }
    assert r"\begin{tabular}{@{}>" in latex.as_latex(tables["starred"])  # its first column is in paragraphs
    for name, example in tables.items():
        (tmp_path / f"{name}.tex").write_text(latex.as_latex(example))
    printed = compiled(tmp_path, list(tables), columns=columns)
    assert NASTY in printed
    assert printed.count("A note that says") > 0
    assert printed.count("model_number_1") == printed.count("model_number_2") == 3, "in captions and rows"


@needs_latex
def test_a_table_is_not_shrunk_until_nobody_can_read_it(tmp_path):
    for name, columns in (("wide", 14), ("hopeless", 28)):
        (tmp_path / f"{name}.tex").write_text(latex.as_latex(made(columns, 2)))
    compiled(tmp_path, ["wide"])
    with pytest.raises(AssertionError, match="Overfull"):
        compiled(tmp_path, ["hopeless"])


def test_cells_are_broken_only_where_they_must_and_over_the_whole_page():
    rows = table.Rows()
    cells = {f"Number {k}": table.number(f"n{k}", k, "+0.63 to +0.75") for k in range(3)}
    method = "standard error clustered by 20 seeds and 297 clusters of 10,000 test images, t, 58.8 degrees of freedom"
    rows.add(
        Baseline=table.words("b", "mlp_matched"),
        **cells,
        Method=table.words("m", method),
        Runs=table.words("r", "20 of 20 pairs of runs"),
    )
    broken = rows.table("example", "An example")
    widths = latex._widths(broken)
    assert latex._columns(broken)[:4] == ["l", "r", "r", "r"]
    assert widths["Method"] > 40
    assert widths["Runs"] > 15
    taken = sum(widths.values()) + 1.5 * (len(widths) - 1)
    assert latex.PAGE - 5 < taken <= latex.PAGE


def test_a_long_table_is_several_floats_that_hold_every_row_once():
    example = made(2, 200, notes=["The note."])
    written = latex.as_latex(example)
    parts = re.findall(r"\(part (\d+) of (\d+)\)\]", written)
    assert [int(k) for k, _ in parts] == list(range(1, len(parts) + 1))
    assert {int(n) for _, n in parts} == {len(parts)} != {1}
    pd.testing.assert_frame_equal(pd.concat(latex._parts(example)), example.shown)
    assert written.count(r"\label{tab:example}") == written.count("The note.") == 1
    assert written.count("What mlp does") == 1
    assert written.index("The note.") > written.rindex(r"\begin{table")


def test_a_narrow_table_takes_one_column():
    rows = table.Rows()
    rows.add(Name=table.words("name", "mlp"), Gap=table.number("gap", 1, "1"))
    assert r"\begin{table}" in latex.as_latex(rows.table("x", "X"))
    assert r"\begin{table*}" in latex.as_latex(made(14, 1))


def test_a_figure_and_its_caption_share_a_page():
    short, long = (figures.canvas.Caption("A word. " * n, name="gap", title="Gap") for n in (5, 100))
    room = [
        int(re.search(r"height=\\dimexpr\\textheight-(\d+)\\baselineskip,", latex.as_figure(c))[1])
        for c in (short, long)
    ]
    assert room[0] < 10
    assert 20 < room[1] < 30
    wide = latex.as_figure(figures.canvas.Caption("A word. " * 100, wide=True, name="gap", title="Gap"))
    assert int(re.search(r"textheight-(\d+)", wide)[1]) < room[1] - 5


def test_captions_count_many_models_and_name_a_few():
    models = [f"m_{k}" for k in range(7)]
    pairs = ", ".join(f"{m} {4 - (m == 'm_3')} of 4" for m in models)
    verdicts = "; ".join(f"{m}: for these images: undecided, p = 0.1" for m in models)
    said = f"Over m_1, m_2 and others. Planned pairs: {pairs}. Verdict at 95%, {verdicts}. With m_1, less."
    assert latex.counted(said, models) == (
        "Over m_1, m_2 and others. Planned pairs: 4 of 4 (6 models); 3 of 4 (1 model). "
        "Verdict at 95%: for these images: undecided, p = 0.1 (7 models). With m_1, less."
    )
    few = f"Planned pairs: {', '.join(f'{m} 4 of 4' for m in models[:4])}."
    differ = f"Gaps: {', '.join(f'{m} +{k}.0' for k, m in enumerate(models))} points."
    for kept in (few, differ):
        assert latex.counted(kept, models) == kept
