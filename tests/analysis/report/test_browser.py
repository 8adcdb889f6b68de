"""The page in a browser: silent, asking nobody for anything, and doing what it promises."""

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import frames
from analysis.findings import build
from analysis.report import figures, latex, page, tables
from tests import synthetic
from tests.browser import CHROMIUM, DRIVER, Browser

AXE = os.environ.get("AXE_CORE")
"""The path of axe.min.js, of `npm install axe-core`."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"),
]
STATES = {("lenet5", 0.03, 0): "diverged", ("lenet5", 0.03, 1): "collapsed", ("mlp", 0.01, 2): "failed"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    models = {"lenet5": synthetic.LENET, "mlp": synthetic.MLP}
    ledger = synthetic.write(
        tmp_path_factory.mktemp("ledger"),
        models=models,
        seeds=4,
        n_test=200,
        states=STATES,
        analysis={"resamples": 100},
    )
    data = frames.load(ledger)
    findings = build.collect(data)
    tables.write(findings, data, folder / "tables")
    latex.write(findings, data, folder / "latex")
    figures.draw(findings, data, folder / "figures")
    page.write(findings, data, folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, report):
    for kind in ("browser", "performance"):
        browser.log(kind)
    browser.open((report / "index.html").as_uri())
    yield browser
    assert browser.log("browser") == [], "nothing to say on the console"


COLUMN = "return [...document.getElementById(arguments[0]).tBodies[0].rows].map(r => r.cells[arguments[1]].textContent)"
CLICK = "document.querySelector(arguments[0]).click()"
VISIBLE = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length"
TEXT = "return document.querySelector(arguments[0]).textContent"
TYPE = """
const box = document.getElementById("search");
box.value = arguments[0];
box.dispatchEvent(new Event("input"))
"""
WIDE = "filter(table => table.offsetWidth > table.parentNode.clientWidth + 1)"
OPEN = "document.querySelectorAll('details').forEach(fold => fold.open = true)"


def test_it_asks_nobody_for_anything(opened, report):
    sent = [json.loads(entry["message"])["message"] for entry in opened.log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [(report / "index.html").as_uri()]


def test_a_click_sorts_by_numbers_and_another_turns_them_round(opened):
    before = opened.run(COLUMN, "table-configurations", 3)
    for rising in (True, False):
        opened.run(CLICK, "#table-configurations th:nth-child(4) button")
        after = opened.run(COLUMN, "table-configurations", 3)
        numbers = [float(cell.split()[0]) for cell in after if cell[0].isdigit()]
        assert numbers == sorted(numbers, reverse=not rising)
    assert sorted(after) == sorted(before), "no row is lost"


def test_cells_without_a_number_stand_last_both_ways(opened):
    states = opened.run(COLUMN, "table-runs", 7)
    assert 0 < states.count("—") < len(states)
    for _ in ("ascending", "descending"):
        opened.run(CLICK, "#table-runs th:nth-child(8) button")
        after = opened.run(COLUMN, "table-runs", 7)
        assert after.index("—") == len(after) - after.count("—")


def test_names_of_runs_are_sorted_as_words_and_counts_as_numbers(opened):
    for name in ("9a", "8e12", "10b"):
        opened.run(
            f"document.querySelector('#table-runs tbody tr:not(.x) td').textContent = '{name}';"
            "document.querySelector('#table-runs tbody tr:not(.x)').classList.add('x')"
        )
    opened.run(CLICK, "#table-runs th:nth-child(1) button")
    runs = opened.run(COLUMN, "table-runs", 0)
    assert runs == sorted(runs)
    counts = "document.querySelectorAll('#table-configurations tbody tr').forEach((row, k) => "
    opened.run(counts + "{row.cells[9].textContent = k ? `${12 - 2 * k} collapsed` : '0'})")
    opened.run(CLICK, "#table-configurations th:nth-child(10) button")
    found = [int(cell.split()[0]) for cell in opened.run(COLUMN, "table-configurations", 9)]
    assert found == sorted(found)
    assert found[-1] == 10


def test_search_leaves_the_rows_that_hold_the_words_and_opens_their_folds(opened):
    rows = opened.run("return document.querySelectorAll('tbody tr').length")
    opened.run(TYPE, "diverged mlp")
    assert opened.run(VISIBLE, "#table-runs tbody tr") == 0
    opened.run(TYPE, "diverged lenet5")
    assert opened.run(VISIBLE, "#table-runs tbody tr") == 1
    assert opened.run(TEXT, "#hits").endswith(" rows of tables")
    opened.run(TYPE, "")
    assert opened.run("return document.querySelectorAll('tbody tr:not([hidden])').length") == rows


@pytest.mark.parametrize(("folder", "suffix"), [("tables", "csv"), ("latex/tables", "tex")])
def test_tables_are_copied_as_they_are_written(opened, report, folder, suffix):
    opened.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    opened.run(CLICK, f"[data-copy='gaps.{suffix}']")
    read = "return new Promise(done => setTimeout(() => navigator.clipboard.readText().then(done), 200))"
    assert opened.run(read) == (report / folder / f"gaps.{suffix}").read_text()
    assert opened.run(TEXT, f"[data-copy='gaps.{suffix}']") == "Copied"


def test_a_value_shows_under_the_pointer_and_goes_with_it(opened):
    where = """
    for (const mark of document.querySelectorAll("#figure-gap .told")) {
        mark.scrollIntoView({block: "center", behavior: "instant"});
        const box = mark.getBoundingClientRect(), [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
        if (mark.contains(document.elementFromPoint(x, y))) return [x, y]  // and no other lies upon it
    }
    """
    x, y = opened.run(where)
    opened.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert re.search(r"seed \d: \d+\.\d+%|points", opened.run(TEXT, "#value"))
    assert opened.run(VISIBLE, "#value") == 1
    opened.command("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert opened.run(VISIBLE, "#value") == 0


def test_every_run_shows_its_curves_and_its_record(opened):
    opened.run(OPEN)
    show = """
    return [...document.querySelectorAll("[data-run]")].map(button => {
        button.click();
        const state = button.closest("tr").cells[2].textContent, panel = document.getElementById("run")
        return [state, button.textContent, panel.textContent, panel.querySelectorAll("polyline").length]
    })
    """
    shown = opened.run(show)
    assert len(shown) == 24
    for state, run_id, text, curves in shown:
        assert run_id in text
        assert "Learning rate" in text
        assert curves == (0 if state == "failed" else 3), state


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_print_opens_what_is_folded(opened, tmp_path):
    assert opened.run("return document.querySelectorAll('details:not([open])').length")
    pdf = opened.command("Page.printToPDF")["data"]
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(pdf))
    printed = subprocess.run(
        ["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    words = " ".join(printed.split())
    assert "ties go to the smaller rate" in words, "the methods are folded on the screen"
    assert "Copy CSV" not in words


@pytest.mark.skipif(AXE is None, reason="AXE_CORE does not name axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(opened, scheme):
    opened.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened.run(OPEN)
    opened.command("Runtime.evaluate", expression=Path(AXE).read_text(encoding="utf-8"))
    found = opened.run("return axe.run()")
    assert [(v["id"], v["help"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []


def test_a_phone_scrolls_tables_not_the_page(opened):
    opened.command("Emulation.setDeviceMetricsOverride", width=375, height=800, deviceScaleFactor=2, mobile=True)
    try:
        assert opened.run("return document.documentElement.scrollWidth") <= 375
        assert opened.run("const t = document.querySelector('.scroll'); return t.scrollWidth > t.clientWidth")
    finally:
        opened.command("Emulation.clearDeviceMetricsOverride")


def test_the_first_screen_shows_the_whole_figure_of_the_gap(opened):
    opened.command("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    try:
        assert opened.run("return document.querySelector('#figure-gap .picture').getBoundingClientRect().bottom") <= 800
    finally:
        opened.command("Emulation.clearDeviceMetricsOverride")


def test_on_paper_no_table_is_wider_than_the_page(opened):
    """A4 between margins of one centimetre, where nothing scrolls."""
    opened.command("Emulation.setEmulatedMedia", media="print")
    opened.command("Emulation.setDeviceMetricsOverride", width=718, height=1000, deviceScaleFactor=1, mobile=False)
    try:
        opened.run(OPEN)
        assert opened.run(f"return [...document.querySelectorAll('.scroll table')].{WIDE}.map(table => table.id)") == []
    finally:
        opened.command("Emulation.clearDeviceMetricsOverride")
        opened.command("Emulation.setEmulatedMedia", media="")
