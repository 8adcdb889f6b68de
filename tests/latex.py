"""Compiles what the report writes for LaTeX."""

import re
import shutil
import subprocess

import pytest


def compiled(folder, names, *, columns: int = 1) -> str:
    r"""The text of the PDF of a document that \inputs the files; errors, and floats or boxes too large, fail."""
    inputs = "\n".join(rf"\input{{{name}}}\clearpage" for name in names)
    (folder / "paper.tex").write_text(
        f"\\documentclass[{'twocolumn' if columns == 2 else 'onecolumn'}]{{article}}\\usepackage[T1]{{fontenc}}"
        "\\usepackage{array,booktabs,graphicx,lmodern}\\graphicspath{{../figures/}}"
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
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide", run.stdout)]
    assert not [points for points in wide if points > 1], re.findall(r"Overfull.*", run.stdout)
    assert "Float too large" not in run.stdout, re.findall(r"Float too large.*", run.stdout)
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    return subprocess.run(["pdftotext", "-layout", "paper.pdf", "-"], cwd=folder, capture_output=True, text=True).stdout
