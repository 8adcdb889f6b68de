"""Every figure is drawn, the same bytes each time, with its caption; or its caption says why not."""

import dataclasses
import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from statsmodels.stats.power import TTestPower

from analysis import frames, text
from analysis.findings import build
from analysis.findings.across import across
from analysis.report import figures
from analysis.report.figures import architecture, calibration, canvas, forest, images, style
from analysis.stats import curves
from tests import synthetic

RATES = (0.003, 0.01, 0.03)
TWO = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
EVERYDAY = ("convnet_small", "convnet_with_dropout", "mlp_matched_dropout")
LONG = tuple(f"my_laboratory.experiments.networks_of_2026:A_rather_long_name_of_a_network_{k}" for k in range(4))
TEN = tuple(f"model_number_{k}" for k in range(10))
PIXELS = ("hard_images", "gallery", "every_run")
"""Figures that hold images, or a scale of colours."""
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
    return build.collect(data), data


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    findings, data = analysed(tmp_path_factory.mktemp("ledger"), models=TWO, seeds=4, states=STATES, n_test=400)
    folder = tmp_path_factory.mktemp("figures")
    return findings, data, folder, figures.draw(findings, data, folder)


def test_every_figure_is_there_with_its_caption(drawn):
    findings, data, folder, written = drawn
    written = {path.name for path in written}
    assert written == {path.name for path in folder.iterdir()}
    for caption in figures.captions(findings, data):
        assert f"{caption.name}.txt" in written
        drawn_files = {f"{caption.name}{suffix}" for suffix in style.SUFFIXES}
        assert drawn_files <= written if caption.missing is None else not drawn_files & written
        rests_on_runs = caption.name != "architecture"
        assert caption.missing or re.search(r"\d of \d", caption.text) or not rests_on_runs, f"{caption.name}: no n"
    assert {caption.name for caption in figures.captions(findings, data)} == set(figures.FIGURES)


@pytest.mark.slow
def test_bytes_are_the_same_each_time_and_hold_no_date(drawn, tmp_path):
    findings, data, folder, _ = drawn
    for path in figures.draw(findings, data, tmp_path, processes=2):
        content = path.read_bytes()
        assert content == (folder / path.name).read_bytes(), path.name
        assert b"CreationDate" not in content
        assert b"<dc:date>" not in content


def test_drawing_leaves_matplotlib_as_it_was(drawn, tmp_path, monkeypatch):
    findings, data, *_ = drawn
    few = [figures.FIGURES[name].caption(findings, data) for name in ("gap", "confusion")]
    monkeypatch.setattr(figures, "captions", lambda *_: few)
    mpl.rcParams["font.size"] = 11.5  # neither matplotlib's default nor ours
    before = dict(mpl.rcParams)
    try:
        figures.draw(findings, data, tmp_path)
        assert dict(mpl.rcParams) == before
    finally:
        mpl.rcdefaults()


def test_fonts_are_embedded_and_all_but_the_images_is_vectors(drawn):
    *_, folder, _ = drawn
    for path in folder.glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content, f"{path.name} embeds no TrueType font"
        assert b"/Type3" not in content, f"{path.name} holds Type 3 fonts, which journals refuse"
        assert (b"/Subtype /Image" in content) == (path.stem in PIXELS), f"{path.name}: pixels"


def test_widths_are_those_of_a_paper(drawn):
    findings, data, folder, _ = drawn
    for caption in figures.captions(findings, data):
        if caption.missing is None:
            width = float(re.search(r'width="([\d.]+)pt"', (folder / f"{caption.name}.svg").read_text())[1]) / 72
            assert width == pytest.approx(style.PAGE if caption.wide else style.COLUMN), caption.name


def test_every_run_is_in_the_figure_of_learning_rates(drawn):
    findings, data, *_ = drawn
    scene = scene_of(findings, data)
    with style.applied():
        axes = figures.FIGURES["learning_rates"].draw(scene).axes[0]
    points = [line for line in axes.lines if line.get_markersize() == 2.2]
    finished = data.runs[data.runs["state"] == "finished"]
    heights = np.sort(np.concatenate([line.get_ydata() for line in points]))
    np.testing.assert_allclose(heights, np.sort(100 * (1 - finished["final_test_accuracy"])))
    assert [text.get_text() for text in axes.texts] == ["1"], "the one diverged run is counted"
    assert axes.get_yscale() == "log"


def test_every_pair_is_in_the_figure_of_the_gap(drawn):
    findings, data, *_ = drawn
    with style.applied():
        axes = figures.FIGURES["gap"].draw(scene_of(findings, data)).axes[-1]
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    comparison = findings.comparisons[0]
    runs = data.runs[data.runs["learned"]].set_index(["model", "learning_rate", "seed"])["final_test_accuracy"]
    d = runs["lenet5", comparison.candidate_rate] - runs["mlp", comparison.baseline_rate]
    np.testing.assert_allclose(np.sort(points.get_xdata()), np.sort(100 * d.dropna()), atol=1e-9)
    ends = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != 0]
    expected = [(e.low, e.high) for e in (comparison.seeds.mean, comparison.images)]
    np.testing.assert_allclose(ends, 100 * np.array(expected))


def drawn_alone(study, name):
    """One figure, laid out, and the texts in it."""
    with style.applied():
        figure = figures.FIGURES[name].draw(scene_of(*study[:2]))
        figure.draw_without_rendering()
        shown = [t for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible()]
    return figure, [t.get_text() for t in shown]


def boxes(figure):
    """The legends, and the texts outside them, with the place of each; of ticks those in view."""
    found = figure.findobj(mpl.legend.Legend)
    skipped = [word for legend in found for word in legend.findobj(mpl.text.Text)]
    for axes in figure.axes:
        if not axes.get_visible():
            skipped += axes.findobj(mpl.text.Text)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (axes.axison and low <= tick.get_loc() <= high):
                    skipped += [tick.label1, tick.label2]
    unseen = set(map(id, skipped))
    words = (word for word in figure.findobj(mpl.text.Text) if word.get_visible() and word.get_text().strip())
    found += [word for word in words if id(word) not in unseen]
    return [(artist, box_of(artist)) for artist in found]


def box_of(artist):
    """Where an artist is; of the names of ticks that stand a line further down only that line."""
    box = artist.get_window_extent()
    if isinstance(artist, mpl.text.Text) and artist.get_text().startswith("\n"):
        return mpl.transforms.Bbox.from_extents(box.x0, box.y0, box.x1, box.y0 + box.height / 2)
    return box


def cut_off(figure):
    """The legends and texts that reach out of the figure."""
    room = figure.bbox.padded(1)
    return [
        artist
        for artist, box in boxes(figure)
        if not (room.x0 <= box.x0 < box.x1 <= room.x1 and room.y0 <= box.y0 < box.y1 <= room.y1)
    ]


def overprinted(figure):
    """The legends and texts that lie upon each other, two by two."""
    near = [(artist, box.padded(-0.75)) for artist, box in boxes(figure)]
    return [(one, other) for (one, a), (other, b) in combinations(near, 2) if a.overlaps(b)]


@pytest.fixture(scope="module", params=[tuple(TWO), EVERYDAY, LONG, TEN], ids=["two", "everyday", "long", "ten"])
def named(request, tmp_path_factory):
    """A study of models with these names, the candidate first and the others ever worse."""
    models = {name: synthetic.Truth(8.3 - 0.3 * k, 3.4, 0.05) for k, name in enumerate(request.param)}
    options = dict(seeds=3, n_test=300, n_val=100, states={}, analysis={"resamples": 100})
    return analysed(tmp_path_factory.mktemp("named"), models=models, **options)


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_nothing_is_cut_off_overprinted_or_taller_than_a_page(named, name):
    if figures.FIGURES[name].caption(*named).missing is not None:
        pytest.skip("not drawn")
    figure, _ = drawn_alone(named, name)
    assert boxes(figure)
    assert cut_off(figure) == []
    assert overprinted(figure) == []
    assert figure.get_figheight() <= style.TALLEST


def test_what_is_cut_off_or_overprinted_is_seen(drawn):
    figure, _ = drawn_alone(drawn, "gap")
    label = next(a.xaxis.label for a in figure.axes if a.xaxis.label.get_text())
    label.set_text(label.get_text() * 5)
    assert cut_off(figure) == [label]
    above, below = figure.axes
    above.set_title("twice")
    below.set_title("twice")
    above.set_position(below.get_position())
    assert [{a.get_text(), b.get_text()} for a, b in overprinted(figure) if "twice" in a.get_text()] == [{"twice"}]


def test_pairs_of_many_baselines_are_drawn_across_the_page(tmp_path, monkeypatch):
    study = analysed(tmp_path, models=dict.fromkeys(TEN, synthetic.LENET), seeds=2, n_test=100, n_val=50)
    caption = figures.FIGURES["gap"].caption(*study)
    assert caption.wide
    assert "model_number_0's left and the baseline's right" in caption.text
    figure, _ = drawn_alone(study, "gap")
    above, below = figure.axes
    assert figure.get_figwidth() == style.PAGE
    assert len([line for line in above.lines if line.get_color() == style.INK]) == 9 == len(below.get_yticks())
    assert [t.get_text().replace("\n", "") for t in above.get_xticklabels()] == list(TEN[1:])
    assert figures.FIGURES["specifications"].caption(*study).text.startswith("The first 3 of 9 baselines.")
    assert len(drawn_alone(study, "specifications")[0].axes) == 9
    panels = [axes for axes in drawn_alone(study, "confusion")[0].axes if axes.get_visible()]
    assert len({round(axes.get_position().y0, 3) for axes in panels}) == 3, "four in a row are larger than three"
    found = across({"ten": study[0]})
    assert 2 < forest._forest(found).get_figheight() <= style.TALLEST
    monkeypatch.setattr(forest, "TALLEST", 2)
    assert forest._forest(found).get_figheight() == 2


@pytest.mark.parametrize(
    ("label", "width", "lines"),
    [
        ("convnet_with_dropout", 20, ["convnet_with_dropout"]),
        ("convnet_with_dropout", 13, ["convnet_with_", "dropout"]),
        ("A_rather_l…a_network_2", 12, ["A_rather_l…", "a_network_2"]),
        ("lenet5 − baseline\n(percentage points)", 16, ["lenet5", "− baseline", "(percentage", "points)"]),
        ("lenet5 − baseline\n(percentage points)", 19, ["lenet5 − baseline", "(percentage points)"]),
        ("convolutional_net", 9, ["conv…nal_", "net"]),
        ("one − a_model_of", 12, ["one", "− a_model_of"]),
    ],
)
def test_labels_are_broken_between_their_parts(label, width, lines):
    assert canvas.in_lines(label, width).split("\n") == lines


def test_both_accuracies_of_every_pair_are_above_its_difference(drawn):
    findings, data, *_ = drawn
    figure, _ = drawn_alone(drawn, "gap")
    above, below = figure.axes
    c = findings.comparisons[0]
    runs = data.runs[data.runs["learned"]].set_index(["model", "learning_rate", "seed"])["final_test_accuracy"]
    own, other = runs["lenet5", c.candidate_rate].align(runs["mlp", c.baseline_rate], join="inner")
    slopes = [line.get_ydata() for line in above.lines if line.get_linewidth() == 0.4]
    np.testing.assert_allclose(slopes, 100 * np.array([own, other]).T)
    beside = [text.points(c.seeds.mean.estimate, text.point_digits(c.seeds.mean.low, c.seeds.mean.high))]
    beside += [text.points_interval(e.low, e.high) for e in (c.seeds.mean, c.images)]
    assert [t.get_text() for t in below.texts] == beside
    assert "Above" in figures.FIGURES["gap"].caption(findings, data).text


def test_the_generalisation_gap_is_test_minus_training_error(drawn):
    findings, data, *_ = drawn
    figure, _ = drawn_alone(drawn, "generalisation")
    runs = data.runs[data.runs["learned"]]
    own = runs[(runs["model"] == "mlp") & (runs["learning_rate"] == findings.selection["mlp"].mean.learning_rate)]
    epochs = data.epochs[data.epochs["run_id"].isin(own["run_id"])].groupby("epoch")
    expected = 100 * (epochs["train_accuracy"].mean() - epochs["test_accuracy"].mean())
    lower = figure.axes[list(findings.selection).index("mlp") + len(findings.selection)]
    np.testing.assert_allclose(lower.lines[1].get_ydata(), expected)


def test_every_finished_run_is_a_cell(drawn):
    _, data, *_ = drawn
    figure, _ = drawn_alone(drawn, "every_run")
    meshes = [axes.collections[0].get_array() for axes in figure.axes[:2]]
    finished = data.runs[data.runs["state"] == "finished"]
    cells = np.concatenate([mesh.compressed() for mesh in meshes])
    np.testing.assert_allclose(np.sort(cells), np.sort(100 * (1 - finished["final_test_accuracy"])))
    crosses = [len(line.get_xdata()) for axes in figure.axes[:2] for line in axes.lines]
    assert crosses == [1, 0]


def test_the_gallery_is_ordered_by_the_share_of_runs_that_are_wrong(drawn):
    findings, data, *_ = drawn
    wrong, run_ids = images.misclassified(findings, data)["mlp"]
    assert wrong.shape == (len(run_ids), len(data.test_labels))
    for run_id, row in zip(run_ids, wrong, strict=True):
        assert row.mean() == pytest.approx(1 - data.runs.set_index("run_id").loc[run_id, "final_test_accuracy"])
    _, texts = drawn_alone(drawn, "gallery")
    shares = [float(t.split("\n")[1].rstrip("%")) for t in texts if "→" in t]
    split = min(images.PER_ROW, int((images.misclassified(findings, data)["lenet5"][0].any(axis=0)).sum()))
    assert shares[:split] == sorted(shares[:split], reverse=True)
    assert shares[split] == 100 * wrong.mean(axis=0).max()


def test_the_gallery_says_how_many_images_every_run_gets_wrong(drawn, monkeypatch):
    findings, data, *_ = drawn
    always = np.ones((4, images.PER_ROW + 6), bool)
    monkeypatch.setattr(
        images, "misclassified", lambda *_: {"mlp": (always, list("abcd")), "lenet5": (always[:, :3], "a")}
    )
    said = figures.FIGURES["gallery"].caption(findings, data).text
    assert "the first by position: mlp 20." in said
    assert said.endswith("Planned runs: mlp 4 of 4, lenet5 1 of 4.")


def test_confusions_are_compared_cell_by_cell(drawn):
    findings, *_ = drawn
    figure, _ = drawn_alone(drawn, "confusion_difference")
    shown = figure.axes[0].collections[0].get_array()
    expected = 100 * (np.array(findings.confusion["mlp"].shares) - np.array(findings.confusion["lenet5"].shares))
    off = ~np.eye(len(expected), dtype=bool)
    np.testing.assert_allclose(np.ma.getdata(shown)[off], expected[off])


def test_the_power_marked_is_that_of_the_study(drawn):
    findings, *_ = drawn
    figure, _ = drawn_alone(drawn, "power")
    d = np.array([value for _, value in findings.comparisons[0].seeds.quantiles])
    solved = TTestPower().power(findings.about.settings.margin / d.std(ddof=1), len(d), 0.05, alternative="two-sided")
    (mark,) = (
        line for line in figure.axes[0].lines if line.get_marker() == style.MARKERS[1] and len(line.get_xdata()) == 1
    )
    assert mark.get_ydata()[0] == pytest.approx(100 * solved)


def test_every_layer_is_drawn_with_its_kind_its_output_and_its_parameters(drawn):
    findings, data, *_ = drawn
    panels = figures.plot(findings, data, "architecture").axes
    for model, axes in zip(findings.about.models, panels, strict=True):
        said = [mark.get_text() for mark in axes.texts if mark.get_text()]
        assert said[0] == model.name
        for layer in data.study.layers[model.name]:
            words = [layer.kind, "×".join(map(str, layer.output_shape)), text.count(layer.n_parameters)]
            assert words == said[said.index(layer.kind) :][:3]
        # Six sheets at most of the feature maps, one of the image, and a bar for the vector.
        assert len(axes.patches) >= 1 + data.study.layers[model.name][0].output_shape[0] + 1


def test_of_one_seed_and_one_epoch_there_are_marks_and_no_word_of_intervals(tmp_path):
    findings, data = analysed(tmp_path, models=TWO, seeds=1, epochs=1, n_test=400, analysis={"resamples": 100})
    for caption in figures.captions(findings, data):
        if caption.missing is None and caption.name not in ("specifications", "hard_images"):
            assert not re.search(r"95%|bars: ", caption.text), caption.name
            assert not re.search(r"[Bb]lack|[Ww]hite", caption.text), caption.name
    for name in ("gap", "sweep"):
        drawing = figures.plot(findings, data, name)
        legends = [*drawing.legends, *(axes.get_legend() for axes in drawing.axes if axes.get_legend())]
        assert not [word.get_text() for shown in legends for word in shown.get_texts() if "95%" in word.get_text()]
    drawing = figures.plot(findings, data, "generalisation")
    for upper, lower in zip(drawing.axes[:2], drawing.axes[2:], strict=True):
        marks = [line for line in upper.lines if line.get_marker() in "^os" and (line.get_alpha() or 0) > 0.5]
        assert len(marks) == 3
        (gap,) = (line for line in lower.lines if line.get_marker() == "o")
        low, high = lower.get_ylim()
        assert low < gap.get_ydata()[0] < high
        assert list(lower.get_xticks()) == [1]


@pytest.mark.parametrize(
    ("layers", "says"), [(0, "before layers were kept"), (1, None), (30, None), (120, "too many layers for a page")]
)
def test_an_architecture_of_any_depth_is_drawn_or_it_is_said_why_not(layers, says, drawn):
    findings, data, *_ = drawn
    kept = {m: of[:1] * layers for m, of in data.study.layers.items()} if layers else {}
    changed = dataclasses.replace(data, study=data.study.model_copy(update={"layers": kept}))
    (caption,) = (c for c in figures.captions(findings, changed) if c.name == "architecture")
    if says:
        assert says in caption.missing
        return
    assert caption.missing is None
    drawing = figures.plot(findings, changed, "architecture")
    assert architecture.MOST * architecture.ROW < 1.01 * style.TALLEST, "pressed into less, words lie upon each other"
    assert len(drawing.axes) == 2 * -(-(layers + 1) // (architecture.WIDE if caption.wide else architecture.NARROW))
    assert caption.wide == (drawing.get_figwidth() == style.PAGE) == (layers > 5)


def test_the_uncertainty_is_drawn_as_the_findings_have_it(drawn):
    findings, data, *_ = drawn
    upper, lower = figures.plot(findings, data, "components").axes
    points = [line.get_xdata()[0] for line in upper.lines if len(line.get_xdata()) == 1]
    spreads = findings.seed_spread.values()
    assert points == [100 * e.estimate for v in spreads for e in (v.on_test_set, v.distribution_wise)]
    shares = [found.crossed.image_share for found in findings.images.values()]
    widths = [width for share in shares for width in (100 * share, 100 * (1 - share))]
    assert [bar.get_width() for bar in lower.patches] == pytest.approx(widths, rel=1e-12)


def test_accuracy_stands_against_parameters_macs_and_seconds(drawn):
    findings, *_ = drawn
    figure, _ = drawn_alone(drawn, "cost")
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "Thousand parameters",
        "Thousand multiply-accumulates an image",
        "Seconds a run",
    ]
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [float(line.get_xdata()[0]) for line in points] == [m.n_parameters / 1000 for m in findings.about.models]
    assert all(line.get_markersize() < 3 for line in points), "larger ones hide the intervals of many seeds"


CLEAR = 4
"""Pixels between two labels of an axis, 150 an inch."""


@pytest.mark.parametrize("seeds", [1, 8])
def test_ticks_of_narrow_panels_and_low_bars_do_not_overlap(seeds, tmp_path):
    data = frames.load(synthetic.write(tmp_path, seeds=seeds, n_test=1000, analysis={"resamples": 100}))
    findings = build.collect(data)
    figure = figures.plot(findings, data, "gap")
    figure.draw_without_rendering()
    below = figure.axes[0].get_xticklabels()
    assert all(label.get_rotation() == 0 for label in below)
    for down in (False, True):  # the baselines' names may be a line further down
        line = [label.get_window_extent() for label in below if label.get_text().startswith("\n") is down]
        assert not any(a.overlaps(b) for a, b in pairwise(line))
    for name, along in (("cost", 0), ("every_run", 1)):
        figure = figures.plot(findings, data, name)
        figure.draw_without_rendering()
        axes = figure.axes[:3] if name == "cost" else figure.axes[-1:]
        for panel in axes:
            ticks = panel.get_xticklabels() if name == "cost" else panel.get_yticklabels()
            low, high = panel.get_xlim() if name == "cost" else panel.get_ylim()
            spans = [t.get_window_extent() for t in ticks if low <= t.get_position()[along] <= high]
            ends = sorted((box.x0, box.x1) if name == "cost" else (box.y0, box.y1) for box in spans)
            assert len(ends) > 1, name
            assert all(end + CLEAR < start for (_, end), (start, _) in pairwise(ends)), name


def test_the_figure_of_the_gap_names_direction_level_and_populations(drawn):
    _, texts = drawn_alone(drawn, "gap")
    assert "lenet5\n− mlp" in texts
    assert {"95%: seeds (this test set)", "95%: seeds and new images"} <= set(texts)
    assert any("percentage points" in text for text in texts)


def test_the_figure_of_the_sweep_shows_and_names_both_intervals(drawn):
    findings, *_ = drawn
    figure, texts = drawn_alone(drawn, "sweep")
    assert {"95%: this rate", "95%: all rates"} <= set(texts)
    (rates,) = (s.rates for s in findings.sweep.values())
    bars = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 2 and line.get_xdata()[0] != 0]
    bars = [line for line in bars if line.get_xdata()[0] == line.get_xdata()[1]]
    thick, thin = (
        [line.get_ydata() for line in bars if (line.get_linewidth() > 2) == which] for which in (True, False)
    )
    np.testing.assert_allclose(thick, [(100 * r.gap.low, 100 * r.gap.high) for r in rates if r.gap.low is not None])
    np.testing.assert_allclose(thin, [(100 * r.band.low, 100 * r.band.high) for r in rates if r.band.low is not None])
    (means,) = (line for line in figure.axes[0].lines if line.get_marker() == style.MARKERS[1])
    assert means.get_markersize() < min(line.get_linewidth() for line in bars if line.get_linewidth() > 2)


def test_curves_end_at_a_tick_and_leave_out_what_did_not_train(drawn):
    findings, data, *_ = drawn
    figure, _ = drawn_alone(drawn, "learning_curves")
    for axes in figure.axes:
        assert axes.get_xticks()[-1] == findings.about.epochs
    means = curves.curves(data.runs, data.epochs, 0.95)
    rates = {(c.model, c.learning_rate): c.test_accuracy.estimate for c in findings.configurations}
    last = means.query("metric == 'test_accuracy'").groupby(["model", "learning_rate"])["mean"].last()
    for key, mean in last.items():
        assert mean == pytest.approx(rates[key]), "as in the figure of learning rates and the tables"


def test_no_number_of_the_confusions_is_zero(drawn):
    findings, data, *_ = drawn
    shares = np.zeros((10, 10))
    shares[0, 1:4] = 0.0005, 0.0004, 0.0006
    of_mlp = findings.confusion["mlp"].model_copy(update=dict(shares=shares.tolist()))
    of_lenet = of_mlp.model_copy(update=dict(shares=np.zeros((10, 10)).tolist()))
    changed = findings.model_copy(update=dict(confusion={"lenet5": of_lenet, "mlp": of_mlp}))
    for name, expected in (("confusion", {"0.1"}), ("confusion_difference", {"+0.1"})):
        figure, _ = drawn_alone((changed, data), name)
        assert {t.get_text() for axes in figure.axes for t in axes.texts} - {""} == expected


def test_numbers_of_the_confusions_can_be_read(drawn):
    figure, _ = drawn_alone(drawn, "confusion")
    numbers = [t for axes in figure.axes for t in axes.texts if t.get_text()]
    assert min(t.get_fontsize() for t in numbers) >= 5.5
    darkest = luminance(figure.axes[0].collections[0].cmap(1.0))
    assert all((darkest + 0.05) / (luminance(t.get_color()) + 0.05) > 4.5 for t in numbers), "WCAG AA"


def luminance(colour):
    """Relative luminance of WCAG 2."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_hard_images_say_what_they_are_and_what_they_are_taken_for(drawn):
    findings, data, *_ = drawn
    _, texts = drawn_alone(drawn, "hard_images")
    hard = findings.images["mlp"].hard
    at = hard.baseline_alone_wrong[0]
    runs = set(data.runs.query("model == 'mlp'")["run_id"]) & set(findings.run_sets[hard.rests_on.runs])
    read = [int(data.predictions[run_id]["test"][at]) for run_id in runs]
    commonest = min(read, key=lambda label: (-read.count(label), label))
    assert f"{data.test_labels[at]} → {commonest}" in texts
    assert commonest != data.test_labels[at]


def test_few_hard_images_take_one_column(drawn):
    findings, *_ = drawn
    for n, wide in ((images.PER_COLUMN, False), (images.PER_COLUMN + 1, True)):
        hard = findings.images["mlp"].hard.model_copy(
            update=dict(baseline_alone_wrong=tuple(range(n)), candidate_alone_wrong=())
        )
        found = findings.images["mlp"].model_copy(update=dict(hard=hard))
        changed = findings.model_copy(update=dict(images={"mlp": found}))
        assert figures.FIGURES["hard_images"].says(changed, None).wide == wide


def test_few_hard_images_fill_the_page_and_a_row_of_none_is_told(drawn):
    findings, data, *_ = drawn
    hard = findings.images["mlp"].hard.model_copy(
        update=dict(baseline_alone_wrong=tuple(range(10)), candidate_alone_wrong=())
    )
    found = findings.images["mlp"].model_copy(update=dict(hard=hard))
    changed = findings.model_copy(update=dict(images={"mlp": found}))
    figure, _ = drawn_alone((changed, data), "hard_images")
    (axes,) = figure.axes
    assert axes.get_xlim()[1] == 10
    right = max(patch.get_window_extent().x1 for patch in axes.patches)
    assert right > 0.95 * figure.bbox.width
    assert (
        "There is none with lenet5 wrong and mlp right." in figures.FIGURES["hard_images"].caption(changed, data).text
    )


def test_no_epoch_leaves_the_frame_of_the_generalisation_gap(drawn):
    scene = scene_of(*drawn[:2])
    points = scene.curves.copy()
    first = (points["metric"] == "generalisation_gap") & (points["epoch"] == 1)
    points.loc[first, ["mean", "low", "high"]] = -0.2, -0.21, -0.19
    with style.applied():
        figure = figures.FIGURES["generalisation"].draw(dataclasses.replace(scene, curves=points))
    for axes in figure.axes[2:]:
        low, high = axes.get_ylim()
        values = [y for line in axes.lines for y in line.get_ydata()]
        assert min(values) == pytest.approx(-20)
        assert low < min(values) < max(values) < high


def test_no_caption_speaks_of_what_the_figure_lacks_or_repeats_its_title(drawn):
    for caption in figures.captions(*drawn[:2]):
        assert not re.search(r"[Nn]ot drawn|left out|leave the frame|in the table", caption.text), caption.name
        assert not re.search(r"[Bb]lack|[Ww]hite", caption.text), f"{caption.name}: where the page is dark it is not"
        assert not caption.text.startswith(caption.title), caption.name


def test_keys_of_planning_are_dashed_only_where_its_lines_are(drawn):
    findings, data, *_ = drawn
    models = {name: style.looks(list("abcde"))["b"] for name in findings.planning}
    with style.applied():
        figure = figures.FIGURES["planning"].draw(dataclasses.replace(scene_of(findings, data), looks=models))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    keys = [key for shown in figure.legends for key in shown.legend_handles]
    assert {line.get_linestyle() for line in [*lines, *keys]} == {"-"}
    assert "Steep" in figures.FIGURES["planning"].caption(findings, data).text


def test_power_is_drawn_for_every_number_of_seeds_and_no_mark_hides_another(drawn):
    figure, _ = drawn_alone(drawn, "power")
    (axes,) = figure.axes
    curves = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) > 2]
    assert all(np.array_equal(x, np.arange(2, 1001)) for x in curves)
    assert [line.get_markerfacecolor() for line in axes.lines if len(line.get_xdata()) == 1] == ["none"]
    assert "80% and 90%" in figures.FIGURES["power"].caption(*drawn[:2]).text


def test_marks_at_the_edge_are_whole(drawn):
    figure, _ = drawn_alone(drawn, "selection")
    marks = [line for line in figure.axes[0].lines if line.get_marker() in style.MARKERS]
    assert marks, "and those of a share of 0 lie on the edge"
    assert not any(line.get_clip_on() for line in marks)


def test_lines_join_the_medians_of_the_runs_that_learned(drawn):
    _, data, *_ = drawn
    figure, _ = drawn_alone(drawn, "learning_rates")
    joined = [line.get_ydata() for line in figure.axes[0].lines if line.get_marker() == "_"]
    learned = data.runs[data.runs["learned"]].groupby(["model", "learning_rate"])["final_test_accuracy"].median()
    for model, heights in zip(TWO, joined, strict=True):
        np.testing.assert_allclose(heights, 100 * (1 - learned[model]))


def test_methods_scored_in_few_scenarios_have_rows_of_their_own():
    names = [f"scenario {k}" for k in range(5)]
    each = dict(seeds=5, target="here", quantity="coverage", value=0.95, low=0.94, high=0.96, label="reaches")
    rows = [dict(each, method=method, scenario=name) for method in ("t", "Welch") for name in names]
    scores = pd.DataFrame([*rows, dict(each, method="band", scenario=names[3])])
    with style.applied():
        figure = calibration.figure(scores, {"coverage": (0.94, 0.96)})
        figure.draw_without_rendering()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    shown = {title: len(axes.get_yticks()) for title, axes in zip(titles, figure.axes, strict=True) if title}
    assert shown == {"t, here": 5, "Welch, here": 5, "band, here": 1}


def test_no_caption_speaks_of_what_is_not_drawn(drawn, tmp_path):
    """Everything trained: no guessing, no crosses, nothing that diverged."""
    findings, data = analysed(tmp_path, models=TWO, seeds=3, n_test=1000, analysis={"resamples": 100})
    for name, words in (
        ("learning_rates", ["guessing", "Crosses", "collapsed"]),
        ("learning_curves", ["guessing", "cross", "Not all learned"]),
        ("sweep", ["Crosses", "slightly apart"]),
    ):
        said = [figures.FIGURES[name].caption(*study).text for study in ((findings, data), drawn[:2])]
        for word in words:
            assert word not in said[0], f"{name}: {word}"
        assert any(word in said[1] for word in words[:2]), f"{name}: it is said where it is drawn"
    figure, _ = drawn_alone((findings, data), "learning_rates")
    assert figure.axes[0].get_ylim()[1] < 45, "no room for what is not there"


def test_runs_that_diverged_in_their_first_epoch_are_counted_in_their_panel(tmp_path):
    states = {("mlp", 0.03, 0): "diverged", ("mlp", 0.03, 1): "diverged"}
    findings, data = analysed(tmp_path, models=TWO, seeds=3, n_test=100, states=states, epochs=1)
    assert not data.epochs["run_id"].isin(data.runs.loc[data.runs["state"] == "diverged", "run_id"]).any()
    figure, _ = drawn_alone((findings, data), "learning_curves")
    assert [[t.get_text() for t in axes.texts] for axes in figure.axes] == [[], [], ["× 2"]]
    (count,), frame = figure.axes[2].texts, figure.axes[2].get_window_extent()
    assert count.get_window_extent().y0 > frame.y1, "inside the frame it would read as an error"
    assert not count.get_window_extent().overlaps(figure.axes[2].title.get_window_extent())
    assert "a cross with their number" in figures.FIGURES["learning_curves"].caption(findings, data).text


def test_specifications_are_all_drawn_and_can_be_told_apart(drawn):
    findings, data, *_ = drawn
    asked = findings.robustness["mlp"]
    figure, _ = drawn_alone(drawn, "specifications")
    top, middle, _ = figure.axes
    points = [line for line in top.lines if line.get_marker() in ("o", "D")]
    heights = [float(line.get_ydata()[0]) for line in points]
    expected = sorted({round(100 * spec.gap.estimate, 9) for spec in asked.specifications})
    np.testing.assert_allclose(heights, expected, atol=1e-8)
    assert len(points) == asked.distinct + 1
    assert any(spec.selection.startswith("best of") for spec in asked.specifications)
    box = top.get_window_extent()
    assert all(box.y0 < top.transData.transform((1, y))[1] < box.y1 for y in heights)
    comparison = findings.comparisons[0]
    bars = [
        line.get_ydata() for line in middle.lines if line.get_solid_capstyle() == "butt" and len(line.get_ydata()) == 2
    ]
    for e in (comparison.seeds.mean, comparison.images):
        assert any(bar == pytest.approx([100 * e.low, 100 * e.high]) for bar in bars), e.population
    low, high = middle.get_ylim()
    arrows = [line for line in middle.lines if line.get_marker() in ("^", "v")]
    assert len(arrows) == sum(not low <= height <= high for height in heights) > 0
    said = figures.FIGURES["specifications"].caption(findings, data).text
    assert "drawn" not in said
    assert "Diamonds, and the dashed line: the primary analysis." in said
    primary = 1 + expected.index(round(100 * comparison.seeds.mean.estimate, 9))
    assert {x for axes in figure.axes for line in axes.lines if line.get_marker() == "D" for x in line.get_xdata()} == {
        primary
    }
    assert [any(line.get_marker() == "D" for line in axes.lines) for axes in figure.axes] == [True] * 3


@pytest.mark.parametrize(
    ("points", "within"), [([], None), ([0], None), ([0.6, -2.6, 1.7], None), ([-0.7, 0.03, 1.1, 0.5, -5, 49], 1)]
)
def test_an_axis_is_logarithmic_where_one_value_would_flatten_the_others(points, within):
    assert canvas.linear_within(points) == within
    assert (canvas.axis_within(canvas.linear_within(points)) == "") == (within is None)


def test_a_signed_axis_shows_zero_and_every_decade():
    with style.applied():
        axes = Figure().subplots()
        axes.plot([0, 1, 2], [-13.6, 0.7, 30])
        style.signed_axis(axes, 1.0)
        assert list(np.sort(axes.get_yticks())) == [-10, -1, 0, 1, 10]
        assert axes.yaxis.get_major_formatter()(-10) == "−10"


def test_ticks_of_a_signed_axis_have_room():
    with style.applied():
        axes = Figure().subplots()
        axes.set_ylim(-8, 2.3)
        style.signed_axis(axes, 1.0, (1, 5, 2))
        assert list(np.sort(axes.get_yticks())) == [-5, -1, 0, 1], "-2 and 2 would lie next to -1 and 1"


@pytest.mark.parametrize(("lag", "within"), [(0.002, False), (0.2, True)])
def test_the_axis_of_the_generalisation_gap_is_logarithmic_only_where_that_is_needed(lag, within, tmp_path):
    findings, data = analysed(tmp_path, models=TWO, seeds=3, n_test=400, analysis={"resamples": 100})
    epochs = data.epochs.assign(train_accuracy=data.epochs["test_accuracy"] - lag / data.epochs["epoch"])
    study = findings, dataclasses.replace(data, epochs=epochs)
    figure, _ = drawn_alone(study, "generalisation")
    low, high = figure.axes[2].get_ylim()
    assert len([tick for tick in figure.axes[2].get_yticks() if low <= tick <= high]) > 1
    assert (figure.axes[2].get_yscale() == "symlog") is within
    assert ("linear within ±1 point" in figures.FIGURES["generalisation"].caption(*study).text) is within


def test_every_hard_image_has_a_frame(drawn):
    figure, _ = drawn_alone(drawn, "hard_images")
    (axes,) = figure.axes
    assert len(axes.patches) == len(axes.images) > 0


def test_values_are_told_where_the_pointer_rests(drawn):
    findings, _, folder, _ = drawn
    svg = (folder / "gap.svg").read_text()
    comparison = findings.comparisons[0]
    for _, pair in comparison.seeds.quantiles:
        assert f"<title>one pair: {text.signed(100 * pair, 3)} points</title>" in svg
    assert svg.count("<title>one pair") == len(comparison.seeds.quantiles)
    assert "told:" not in "".join(path.read_text() for path in folder.glob("*.svg"))


def test_text_in_an_svg_is_text(drawn):
    *_, folder, _ = drawn
    assert ">Learning rate</text>" in (folder / "learning_rates.svg").read_text()


@pytest.mark.parametrize("seeds", [2, 5])
def test_specifications_are_counted_at_even_distances(seeds, tmp_path):
    study = analysed(tmp_path, models=TWO, seeds=seeds, n_test=300, n_val=100, analysis={"resamples": 100})
    figure, _ = drawn_alone(study, "specifications")
    n = len([line for line in figure.axes[0].lines if line.get_marker() in ("o", "D")])
    ticks = list(figure.axes[-1].get_xticks())
    assert len(set(np.diff([0, *ticks]))) == 1
    assert 1 < len(ticks) <= 6
    assert ticks[-1] <= n


def test_cells_without_room_have_no_numbers_and_the_captions_say_so(tmp_path):
    study = analysed(tmp_path, models=TWO, classes=20, seeds=2, n_test=400, analysis={"resamples": 100})
    for name in ("confusion", "confusion_difference"):
        figure, _ = drawn_alone(study, name)
        assert not [word for axes in figure.axes for word in axes.texts], name
        said = figures.FIGURES[name].caption(*study).text
        assert "as a shade" in said
        assert "number" not in said


@pytest.mark.parametrize(
    ("states", "alike"),
    [
        ({1: "diverged", 2: "diverged"}, False),
        ({1: "diverged", 2: "collapsed"}, False),
        ({1: "collapsed", 2: "collapsed"}, True),
    ],
)
def test_lines_lie_upon_each_other_where_several_runs_guess(states, alike, tmp_path):
    states = {("mlp", 0.03, seed): state for seed, state in states.items()}
    study = analysed(tmp_path, models=TWO, seeds=3, n_test=100, states=states, analysis={"resamples": 100})
    said = figures.FIGURES["learning_curves"].caption(*study).text
    assert "Not all learned: mlp 1 of 3 at 0.03" in said
    assert ("lie upon each other" in said) is alike


def test_luck_is_drawn_of_the_models_that_could_be_chosen_for(tmp_path):
    diverged = {key: state for key, state in everywhere("diverged").items() if key[0] == "mlp"}
    study = analysed(tmp_path / "one", models=TWO, seeds=2, n_test=100, states=diverged)
    figure, texts = drawn_alone(study, "selection")
    assert [line.get_marker() for line in figure.axes[0].lines] == [style.MARKERS[0]]
    assert "mlp" not in texts
    none = analysed(tmp_path / "none", models=TWO, seeds=2, n_test=100, states=everywhere("diverged"))
    assert figures.FIGURES["selection"].caption(*none).missing == "No learning rate could be selected."


def test_guessing_is_marked_across_learning_rates(drawn):
    figure, _ = drawn_alone(drawn, "learning_rates")
    assert [90, 90] in [list(line.get_ydata()) for line in figure.axes[0].lines]


@pytest.mark.parametrize("near", [True, False])
def test_learning_curves_mark_guessing_where_a_run_came_near_it(near, tmp_path):
    study = analysed(tmp_path, models=TWO, seeds=2, states=everywhere("collapsed") if near else {})
    figure, _ = drawn_alone(study, "learning_curves")
    (caption,) = [c for c in figures.captions(*study) if c.name == "learning_curves"]
    marked = [[90, 90] in [list(line.get_ydata()) for line in axes.lines] for axes in figure.axes]
    assert any(marked) is near
    assert ("guessing" in " ".join(caption.text.split())) is near


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
    for caption in figures.captions(findings, data):
        if caption.missing is None:
            with style.applied():
                figures.FIGURES[caption.name].draw(scene).draw_without_rendering()
        else:
            assert caption.missing.endswith(".")
    assert not [str(w.message) for w in recwarn if "constrained" in str(w.message) or "limits" in str(w.message)]


def test_looks_follow_the_order_of_the_config_and_never_repeat_together():
    models = [f"model_{k}" for k in range(30)]
    looks = style.looks(models)
    assert list(looks) == models
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(models)


def test_a_figure_with_marks_that_are_not_drawn_is_saved_and_no_mark_has_the_value_of_another(tmp_path):
    with style.applied():
        figure = Figure()
        axes = figure.subplots()
        (dots,) = axes.plot([1, 2, np.nan], [1, 2, 3], "o")
        style.tell(dots, ["one", "two", "thirty"])
        style.save(figure, tmp_path, "cut")
    drawn = (tmp_path / "cut.svg").read_text()
    assert "told:" not in drawn
    assert "<title>" not in drawn


def test_a_series_without_a_mark_is_saved(tmp_path):
    with style.applied():
        figure = Figure()
        axes = figure.subplots()
        style.tell(*axes.plot([], [], "o"), ["never seen"])
        style.tell(*axes.plot([1], [1], "o"), ["seen"])
        style.save(figure, tmp_path, "empty")
    drawn = (tmp_path / "empty.svg").read_text()
    assert "<title>seen</title>" in drawn
    assert "never seen" not in drawn
    ElementTree.fromstring(drawn)


def test_first_colours_are_told_apart_without_red_green_vision():
    """Viénot, Brettel and Mollon (1999): what a deuteranope sees of the first three colours differs plainly."""
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in style.COLOURS[:3]])
    linear = rgb**2.2
    dichromat = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    seen = np.clip(linear @ dichromat.T, 0, 1) ** (1 / 2.2)
    distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(3) for j in range(i)]
    assert min(distances) > 0.2


def example_curves(fourth):
    """Curves of three runs that learned and a fourth with this state, which has reached the first epoch."""
    runs = pd.DataFrame(
        {"run_id": list("abcd"), "model": "m", "learning_rate": 0.1, "state": ["finished"] * 3 + [fourth]}
    ).assign(learned=[True] * 3 + [False])
    rows = [("a", 1, 0.5), ("b", 1, 0.6), ("c", 1, 0.7), ("a", 2, 0.9), ("d", 1, 0.1)]
    metrics = {metric: [value for *_, value in rows] for metric in curves.METRICS}
    epochs = pd.DataFrame({"run_id": [r[0] for r in rows], "epoch": [r[1] for r in rows], **metrics})
    return curves.curves(runs, epochs, 0.95).query("metric == 'test_accuracy'").set_index("epoch")


def test_curves_are_means_with_t_intervals_of_the_runs_that_learned():
    found = example_curves("failed")
    # t(0.975, 2) = 4.302653 and SD / sqrt(3) = 0.1 / 1.7320508
    np.testing.assert_allclose(
        found.loc[1, ["mean", "low", "high"]].astype(float), [0.6, 0.351586, 0.848414], atol=1e-6
    )
    assert list(found["n"]) == [3, 1]
    assert list(found["planned"]) == [4, 4]
    assert np.isnan(found.loc[2, "low"])


@pytest.mark.parametrize("state", ["finished", "diverged"])
def test_curves_have_no_band_where_a_run_did_not_train(state):
    found = example_curves(state)
    assert found.loc[1, "mean"] == pytest.approx(0.6)
    assert found[["low", "high"]].isna().all(axis=None)


def test_the_line_of_a_qq_plot_is_the_normal_of_the_same_mean_and_sd():
    np.testing.assert_allclose(
        curves.normal_line([(-1.0, 2.0), (0.0, 3.0), (1.0, 7.0)]), 4 + 7**0.5 * np.array([-1, 0, 1])
    )


def scene_of(findings, data):
    points = curves.curves(data.runs, data.epochs, 0.95)
    return figures.Scene(findings, data, points, style.looks([model.name for model in findings.about.models]))
