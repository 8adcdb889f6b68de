"""Compiles what the report writes for LaTeX."""

import re
import shutil
import subprocess

import pytest


def compiled(folder, names) -> str:
    r"""The text of the PDF of a document that \inputs the files; an error or a table too wide fails the test."""
    inputs = "\n".join(rf"\input{{{name}}}" for name in names)
    (folder / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,longtable,lmodern}"
        f"\\usepackage[paperwidth=8.5in,textwidth=7in]{{geometry}}\\begin{{document}}{inputs}\\end{{document}}"
    )
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        encoding="latin-1",
        timeout=120,
    )
    assert run.returncode == 0, run.stdout[-2000:]
    assert "Overfull" not in run.stdout, re.findall(r"Overfull.*", run.stdout)
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    return subprocess.run(["pdftotext", "-layout", "paper.pdf", "-"], cwd=folder, capture_output=True, text=True).stdout
