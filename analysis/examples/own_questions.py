"""Your own questions to a finished study, cell by cell: editors that know `# %%` run one at a time, Python runs all.

Its only argument is the study: python analysis/examples/own_questions.py DIR_OR_ZIP_OR_URI
"""

# %% Load: a folder, a URI or a ZIP that `python -m study export` wrote.
import sys

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import analysis

study = analysis.load(sys.argv[1] if len(sys.argv) == 2 else "analysis/published/paper/paper.zip")
study  # in a notebook: the answer and the gaps

# %% Look at runs: a row for each that was planned, whatever became of it.
runs = study.runs
print(runs.groupby(["model", "learning_rate"])["state"].value_counts().unstack(fill_value=0))
print(runs[~runs["learned"]].head()[["model", "learning_rate", "seed", "state", "diverged_epoch"]])

# %% Your own plot: how validation accuracy rises at each model's selected rate, a line a run.
findings = study.findings
selected = {model: choice.mean.learning_rate for model, choice in findings.selection.items()}
chosen = runs[runs["learned"] & (runs["learning_rate"] == runs["model"].map(selected))]
curves = study.epochs.merge(chosen[["run_id", "model", "seed"]], on="run_id")
own = Figure(figsize=(5, 3), layout="constrained")
axes = own.subplots()
for colour, (model, of_model) in enumerate(curves.groupby("model", sort=False)):
    wide = of_model.pivot(index="epoch", columns="seed", values="val_accuracy")
    axes.plot(wide.index, 100 * wide, color=f"C{colour}", lw=0.5)
    axes.plot([], [], color=f"C{colour}", label=model)
axes.set(xlabel="Epoch", ylabel="Validation accuracy (%)")
axes.legend()
own  # own.savefig("validation.pdf")

# %% Your own statistic: the median of the paired gaps, with a BCa bootstrap interval, beside the mean of the report.
accuracy = chosen.pivot(index="seed", columns="model", values="final_test_accuracy")
candidate = findings.about.settings.candidate
medians = {}
for comparison in findings.comparisons:
    gaps = (accuracy[candidate] - accuracy[comparison.baseline]).dropna().to_numpy()
    medians[comparison.baseline] = float(np.median(gaps))
    mean = comparison.seeds.mean.estimate
    print(f"{candidate} against {comparison.baseline}, {len(gaps)} pairs: median {100 * np.median(gaps):+.3f} points")
    if mean is not None:
        print(f"  mean of the report {100 * mean:+.3f}")
    if len(np.unique(gaps)) > 1:
        found = stats.bootstrap((gaps,), np.median, method="BCa", rng=0).confidence_interval
        print(f"  95% {100 * found.low:+.3f} to {100 * found.high:+.3f}, below nominal for few pairs")

# %% A figure of the report, changed: it is matplotlib's, so anything may be.
figure = study.plot("learning_rates")
figure.axes[0].set_title("The same, with a title of your own")
figure.axes[0].grid(visible=False)
figure  # figure.savefig("learning_rates.pdf")
