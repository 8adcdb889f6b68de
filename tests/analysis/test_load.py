"""What the package itself offers: a study's runs, findings and figures in three lines of a notebook."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import analysis
from analysis import frames
from analysis.findings.build import collect
from analysis.report.figures import FIGURES
from study.errors import UserError
from tests import synthetic


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    models = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
    options = dict(seeds=4, n_test=200, n_val=60, shape=(6, 6), analysis={"resamples": 200})
    return synthetic.write(tmp_path_factory.mktemp("load"), models, **options)


def test_frames_and_findings_are_those_of_the_report(written):
    study = analysis.load(written)
    data = frames.load(written)
    assert study.runs.equals(data.runs)
    assert study.epochs.equals(data.epochs)
    assert list(study.runs.columns) == list(frames.COLUMNS)
    assert study.findings == collect(data)
    assert study.findings is study.findings


def test_every_figure_by_its_name_alone_or_into_axes(written):
    study = analysis.load(written)
    alone = study.plot("gap")
    assert alone.axes[-1].get_xlabel().startswith("Difference in test accuracy")
    paper = Figure()
    axes = paper.subplots()
    assert study.plot("gap", axes) is paper
    (picture,) = axes.images
    assert np.ptp(picture.get_array()) > 0
    with pytest.raises(ValueError, match=f"allowed: {', '.join(FIGURES)}"):
        study.plot("gaps")
    with pytest.raises(ValueError, match="variance: "):
        study.plot("variance")


def test_a_notebook_shows_the_answer_and_no_markup_of_others(written):
    study = analysis.load(written)
    shown = study._repr_html_()
    assert shown.startswith("<p>On the 200 test images of mnist, lenet5 misclassified ")
    assert shown.count("<tr") == 2
    hostile = study.findings.model_copy(update=dict(answer="<script>alert(1)</script>"))
    study.__dict__["findings"] = hostile
    assert "<script" not in study._repr_html_()


def test_no_study_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no study"):
        analysis.load(tmp_path)
