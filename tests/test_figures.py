"""Every figure is drawn, the same bytes each time, with its caption; or its caption says why not."""

import re
import shutil
import subprocess

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from analysis import captions, collect, curves, figures, frames, style
from tests import synthetic

RATES = (0.003, 0.01, 0.03)
TWO = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
STATES = {
    ("lenet5", 0.03, 0): "diverged",
    ("lenet5", 0.03, 1): "collapsed",
    ("mlp", 0.01, 2): "failed",
    ("mlp", 0.003, 1): "missing",
}


def everywhere(state, seeds=2):
    return {(model, rate, seed): state for model in TWO for rate in RATES for seed in range(seeds)}


def analysed(folder, **study):
    data = frames.load(synthetic.write(folder, **study))
    return collect.collect(data), data


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    findings, data = analysed(tmp_path_factory.mktemp("ledger"), models=TWO, seeds=4, states=STATES, n_test=400)
    folder = tmp_path_factory.mktemp("figures")
    return findings, data, folder, figures.draw(findings, data, folder)


def test_every_figure_is_there_with_its_caption(drawn):
    findings, data, folder, written = drawn
    written = {path.name for path in written}
    assert written == {path.name for path in folder.iterdir()}
    for caption in captions.captions(findings, data):
        assert {f"{caption.name}.txt", f"{caption.name}.tex"} <= written
        drawn_files = {f"{caption.name}.pdf", f"{caption.name}.svg"}
        assert drawn_files <= written if caption.missing is None else not drawn_files & written
        assert caption.missing or re.search(r"\d of \d", caption.text), f"{caption.name} says no n of N"
    assert {caption.name for caption in captions.captions(findings, data)} == set(figures.FIGURES)


@pytest.mark.slow
def test_bytes_are_the_same_each_time_and_hold_no_date(drawn, tmp_path):
    findings, data, folder, _ = drawn
    for path in figures.draw(findings, data, tmp_path):
        content = path.read_bytes()
        assert content == (folder / path.name).read_bytes(), path.name
        assert b"CreationDate" not in content
        assert b"<dc:date>" not in content


def test_drawing_leaves_matplotlib_as_it_was(drawn, tmp_path):
    before = dict(mpl.rcParams)
    with style.applied():
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert dict(mpl.rcParams) == before


@pytest.mark.skipif(shutil.which("pdffonts") is None, reason="pdffonts is not installed")
def test_fonts_are_embedded_truetype(drawn):
    *_, folder, _ = drawn
    for path in folder.glob("*.pdf"):
        listed = subprocess.run(["pdffonts", path], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
        assert listed
        for line in listed:
            assert "TrueType" in line
            assert line.split()[-5] == "yes", f"{path.name}: {line}"


def test_widths_are_those_of_a_paper(drawn):
    findings, data, folder, _ = drawn
    for caption in captions.captions(findings, data):
        if caption.missing is None:
            width = float(re.search(r'width="([\d.]+)pt"', (folder / f"{caption.name}.svg").read_text())[1]) / 72
            assert width == pytest.approx(style.PAGE if caption.wide else style.COLUMN), caption.name


def test_every_run_is_in_the_figure_of_learning_rates(drawn):
    findings, data, *_ = drawn
    scene = scene_of(findings, data)
    with style.applied():
        axes = figures.learning_rates(scene).axes[0]
    points = [line for line in axes.lines if line.get_markersize() == 2.2]
    finished = data.runs[data.runs["state"] == "finished"]
    heights = np.sort(np.concatenate([line.get_ydata() for line in points]))
    np.testing.assert_allclose(heights, np.sort(100 * (1 - finished["final_test_accuracy"])))
    assert [text.get_text() for text in axes.texts] == ["1"], "the one diverged run is counted"
    assert axes.get_yscale() == "log"


def test_every_pair_is_in_the_figure_of_the_gap(drawn):
    findings, data, *_ = drawn
    with style.applied():
        axes = figures.gap(scene_of(findings, data)).axes[0]
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    comparison = findings.comparisons[0]
    runs = data.runs[data.runs["trained"]].set_index(["model", "learning_rate", "seed"])["final_test_accuracy"]
    d = runs["lenet5", comparison.candidate_rate] - runs["mlp", comparison.baseline_rate]
    np.testing.assert_allclose(np.sort(points.get_xdata()), np.sort(100 * d.dropna()), atol=1e-9)
    ends = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != 0]
    expected = [(e.low, e.high) for e in (comparison.seeds.mean, comparison.digits)]
    np.testing.assert_allclose(ends, 100 * np.array(expected))


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(dict(models=TWO, learning_rates=[0.01], seeds=1, epochs=1), id="one seed, rate and epoch"),
        pytest.param(dict(models=TWO, seeds=2, states=everywhere("diverged")), id="all diverged"),
        pytest.param(dict(models=TWO, seeds=2, states=everywhere("diverged"), epochs=1), id="none reached an epoch"),
        pytest.param(dict(models=TWO, seeds=2, states=everywhere("collapsed")), id="all collapsed"),
        pytest.param(dict(models=TWO, seeds=2, states=everywhere("missing")), id="all missing"),
        pytest.param(dict(models=TWO, seeds=2, states=everywhere("unpredicted")), id="no predictions"),
        pytest.param(dict(models=TWO, learning_rates=[0.01], seeds=dict(init=2, order=3, split=2)), id="factorial"),
        pytest.param(dict(models={"lenet5": synthetic.LENET}, seeds=2), id="one model"),
        pytest.param(dict(models=TWO, classes=3, shape=(7, 9), seeds=2, n_val=50), id="other data"),
    ],
)
def test_degenerate_studies_are_drawn_or_say_why_not(study, tmp_path, recwarn):
    findings, data = analysed(tmp_path, n_test=120, analysis={"resamples": 100}, **study)
    scene = scene_of(findings, data)
    for caption in captions.captions(findings, data):
        if caption.missing is None:
            with style.applied():
                figures.FIGURES[caption.name](scene).draw_without_rendering()
        else:
            assert caption.missing.endswith(".")
    assert not [str(w.message) for w in recwarn if "constrained" in str(w.message) or "limits" in str(w.message)]


def test_looks_follow_the_order_of_the_config_and_never_repeat_together():
    models = [f"model_{k}" for k in range(30)]
    looks = style.looks(models)
    assert list(looks) == models
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(models)


def test_first_colours_are_told_apart_without_red_green_vision():
    """Viénot, Brettel and Mollon (1999): what a deuteranope sees of the first three colours differs plainly."""
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in style.COLOURS[:3]])
    linear = rgb**2.2
    dichromat = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    seen = np.clip(linear @ dichromat.T, 0, 1) ** (1 / 2.2)
    distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(3) for j in range(i)]
    assert min(distances) > 0.2


def test_curves_are_means_with_t_intervals_of_the_runs_still_finite():
    runs = pd.DataFrame(
        {"run_id": ["a", "b", "c", "d"], "model": "m", "learning_rate": 0.1, "state": ["finished"] * 3 + ["missing"]}
    )
    rows = [("a", 1, 0.5), ("b", 1, 0.6), ("c", 1, 0.7), ("a", 2, 0.9)]
    metrics = {metric: [value for *_, value in rows] for metric in curves.METRICS}
    epochs = pd.DataFrame({"run_id": [r[0] for r in rows], "epoch": [r[1] for r in rows], **metrics})
    found = curves.curves(runs, epochs, 0.95).query("metric == 'test_accuracy'").set_index("epoch")
    # t(0.975, 2) = 4.302653 and SD / sqrt(3) = 0.1 / 1.7320508
    np.testing.assert_allclose(
        found.loc[1, ["mean", "low", "high"]].astype(float), [0.6, 0.351586, 0.848414], atol=1e-6
    )
    assert list(found["n"]) == [3, 1]
    assert list(found["planned"]) == [4, 4]
    assert np.isnan(found.loc[2, "low"])


def scene_of(findings, data):
    points = curves.curves(data.runs, data.epochs, 0.95)
    return figures.Scene(findings, data, points, style.looks([model.name for model in findings.about.models]))
