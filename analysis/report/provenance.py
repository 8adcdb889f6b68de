"""Where the numbers come from, how to make them again, and how to cite them: read from the ledger, not from here."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pandas as pd

from analysis import text
from analysis.findings.schema import Findings
from analysis.frames import Frames

SOFTWARE = "LeNet-5 against an MLP on MNIST: the accuracy gap and how sure we are of it"
AUTHORS = "The lenet5-vs-mlp authors"


def facts(findings: Findings, frames: Frames) -> list[tuple[str, str]]:
    """Code, versions, machines, dates and time of the study, as terms and what is known of them."""
    runs, launch = frames.runs, frames.study.launches[-1]
    known = runs[runs["train_seconds"].notna()]
    commits = [
        f"{commit}{' with changes that were not committed' if dirty else ''}"
        for commit, dirty in dict.fromkeys(zip(runs["git_commit"], runs["git_dirty"], strict=True))
        if commit
    ]
    seconds = known.groupby("model", sort=False)["train_seconds"].median()
    started = sorted(runs["started_at"].dropna())
    shown = [
        ("Commit", text.listed(commits) if commits else "not recorded"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in launch.versions.items())),
        ("Devices", _listed(known["device"])),
        ("Machines", _listed(known["machine"].where(known["machine"].notna(), known["node"]), "; ")),
        ("Started", " to ".join(dict.fromkeys(when[:16].replace("T", " ") for when in (started[:1] + started[-1:])))),
        ("Training time", f"{known['train_seconds'].sum() / 3600:.3g} hours, added up over runs" if len(known) else ""),
        ("Seconds a run", ", ".join(f"{model} {value:.3g}" for model, value in seconds.items())),
        ("Runs timed", text.of(len(known), len(runs))),
        ("Dataset", f"{findings.about.dataset}, SHA-256 {findings.about.dataset_sha256}"),
    ]
    return [(term, value) for term, value in shown if value]


def again(findings: Findings, frames: Frames) -> list[tuple[str, str, str]]:
    """Names, descriptions and texts of what makes the study and its report again."""
    config = {key: value for key, value in frames.config.items() if key != "storage"}
    changed = [
        f"{d.key}={','.join(map(str, d.used)) if isinstance(d.used, list | tuple) else d.used}"
        for d in findings.preregistration.deviations
        if not d.added and d.key in ("candidate", "baselines", "confidence", "margin", "resamples", "seed")
    ]
    if frames.clusters_file:
        changed.append(f"--clusters {frames.clusters_file}")
    name = findings.about.name
    return [
        ("report", "This report:", " ".join(["python -m analysis", frames.source, *changed])),
        ("study", f"The runs, with the config below saved as {name}.yaml:", f"python -m study run {name}.yaml"),
        ("config", f"{name}.yaml:", json.dumps(config, indent=1, ensure_ascii=False)),
    ]


def bibtex(findings: Findings, frames: Frames) -> str:
    """How the study and its software are cited."""
    runs = frames.runs
    commit = next(iter(runs["git_commit"].dropna()), None)
    year = next(iter(sorted(runs["started_at"].dropna())), "")[:4]
    note = f"Study {text.latex(findings.about.name)}" + (f", commit {commit[:12]}" if commit else "")
    fields = {"title": f"{{{SOFTWARE}}}", "author": f"{{{AUTHORS}}}", "year": year, "note": note}
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    return "\n".join(["@software{lenet5_vs_mlp,", *lines, "}"])


def wandb(frames: Frames, run_id: str) -> str | None:
    """The address of a run at Weights & Biases; None where the study was never published there."""
    return f"{frames.wandb}/runs/{frames.study.name}-{run_id}" if frames.wandb else None


def _listed(values: Iterable[str], between: str = ", ") -> str:
    return between.join(sorted(set(pd.Series(list(values), dtype=object).dropna())))
