"""The report in a real browser: no error, nothing fetched, nothing wider than the screen, and what its
script does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.chromium import PROGRAM, Browser, browser
from helpers.report_samples import make_per_topic, make_results

from mimo_plugin.evaluation.per_topic import PerTopicResults
from mimo_plugin.evaluation.results import parse_results
from mimo_plugin.report.page import PAGE, TOPICS_PAGE, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no chromium: apt-get install chromium"),
]
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    made = make_results(("de", "fi", "ja"), ("bm25", "mimo", "bm25+mimo"), measures="ndcg@10,mrr@10")
    made["systems"]["mimo"]["encoder"] = "/home/someone/experiments/of/last/week/student/stage2/model"
    return made


@pytest.fixture(scope="module")
def report(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    topics = PerTopicResults.model_validate(make_per_topic(results))
    write_report(parse_results(results), directory, topics)
    return directory


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [PAGE, TOPICS_PAGE])
def test_it_works_from_disk_and_fits_the_screen(
    tab: Browser, report: Path, name: str, width: int, dark: bool, tmp_path: Path
) -> None:
    tab.said.clear()
    tab.asked.clear()
    tab.open(report / name, width, dark=dark)
    # With everything unfolded, too.
    tab.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    tab.run("new Promise((done) => setTimeout(done, 500))")
    assert tab.run("document.documentElement.scrollWidth") == width
    beyond = """[...document.querySelectorAll("body *")].filter((part) => !part.closest(".skip")
        && part.getBoundingClientRect().right > innerWidth + 1).map((part) => part.outerHTML.slice(0, 200))"""
    assert tab.run(beyond) == []
    # On a wide screen, a table may scroll in its box, if it says so.
    wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1)"
    assert (
        tab.run(f"{wide}.filter((one) => innerWidth < 600 || !one.classList.contains('wider')).length") == 0
    )
    # `MIMO_SCREENSHOTS=DIR` keeps them, to be looked at.
    file = (
        Path(os.environ.get("MIMO_SCREENSHOTS", tmp_path)) / f"{Path(name).stem}-{width}{'-dark' * dark}.png"
    )
    tab.screenshot(file, width=width)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert tab.said == []
    assert [address for address in tab.asked if not address.startswith(("file:", "data:", "about:"))] == []
    assert sum(address.startswith("file:") for address in tab.asked) == 1


def _column(tab: Browser, table: str, column: int) -> list[str]:
    cells = f"document.querySelectorAll('#{table} tbody:first-of-type tr')"
    found: list[str] = tab.run(f"[...{cells}].map((row) => row.cells[{column}].textContent.trim())")
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_on_a_header_sorts_the_rows(
    tab: Browser, report: Path, results: dict[str, Any], width: int
) -> None:
    tab.open(report / PAGE, width)
    before = _column(tab, "table-scores", 0)
    button = "document.querySelectorAll('#table-scores thead tr:last-child th button')[1]"
    runs = results["evaluation"]["runs"]
    best = sorted(runs, key=lambda name: -runs[name]["macro"]["ndcg@10"])
    called = [results["systems"][name]["label"] for name in best]
    state = f"{button}.closest('th').getAttribute('aria-sort')"
    assert tab.run(state) == "none"
    for wanted, direction in ((called, "descending"), (called[::-1], "ascending"), (before, "none")):
        tab.run(f"{button}.click()")
        assert _column(tab, "table-scores", 0) == wanted
        assert tab.run(state) == direction
    # A measure of which lower is better begins with the lowest; text with the first.
    tab.run("document.querySelector('#table-times thead th:nth-child(2) button').click()")
    assert _column(tab, "table-times", 1)[-1] == "–"
    tab.run("document.querySelector('#table-scores-ndcg-10 thead tr:last-child th button').click()")
    assert _column(tab, "table-scores-ndcg-10", 0) == ["de", "fi", "ja"]


def test_headers_say_which_way_is_better(tab: Browser, report: Path) -> None:
    tab.open(report / PAGE, 1280)
    said = """Object.fromEntries([...document.querySelectorAll('#table-language-bias thead tr:last-child th')]
        .map((one) => [one.childNodes[0].firstChild.textContent, one.title]))"""
    found = tab.run(said)
    assert found["AWRF"] == "higher is better"
    assert found["same-language preference"] == "1 is best"
    assert found["gap"] == "0 is best"
    assert found["entropy"] == ""


def test_a_command_is_copied(tab: Browser, report: Path) -> None:
    tab.open(report / PAGE, 1280)
    copied = """new Promise((done) => {
      navigator.clipboard.writeText = async (text) => done(text);
      document.querySelectorAll("#systems .command button")[1].click();
    })"""
    assert tab.run(copied) == (
        "mimo reproduce eval_configs/debian.yaml --no-bm25 --encoder mimo --output out-mimo"
    )


def test_topics_are_found_and_ordered(tab: Browser, report: Path, results: dict[str, Any]) -> None:
    made = make_per_topic(results)
    tab.open(report / TOPICS_PAGE, 390)
    shown = "[...document.querySelectorAll('#list > details')].filter((one) => !one.hidden)"
    queries = f"{shown}.map((one) => one.querySelector('.query').textContent)"
    assert len(tab.run(queries)) == len(made["topics"])

    def enter(field: str, value: str) -> None:
        tab.run(f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('input'))")

    enter("language", "fi")
    assert tab.run(queries) == [one["text"] for one in made["topics"].values() if one["language"] == "fi"]
    enter("language", "")
    enter("search", "fi:1 d1")
    assert "find files fi:1" in tab.run(queries)
    enter("search", "")
    for order, first in (("gain", made["largest"][0]), ("loss", made["largest"][3])):
        enter("order", order)
        assert tab.run(queries)[0] == made["topics"][first]["text"]
    # An address opens its topic.
    tab.run("location.hash = document.querySelectorAll('#list > details')[5].id")
    assert tab.run(
        "new Promise((done) => setTimeout(() => done(document.querySelectorAll('details[open]').length), 50))"
    )
