"""Results that are not as they have to be, and places that are taken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.report_samples import make_results

from mimo_plugin.cli.benchmark import report_command
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.evaluation.results import parse_results, read_results
from mimo_plugin.report import page as writing
from mimo_plugin.report.page import write_report

Change = Callable[[dict[str, Any]], Any]


def _plain() -> dict[str, Any]:
    """Results without a figure."""
    results = make_results(("de", "fi"), ("mimo",), measures="ndcg@10")
    return results | {"language_bias": {}, "geometry": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.update(format="mimo-experiment"),
            "format 'mimo-experiment', version 1; expected 'mimo-repr",
        ),
        (lambda r: r.update(format_version=2), "version 2; expected 'mimo-reproduction', version 1"),
        (lambda r: r.pop("format"), "format None"),
        (lambda r: r.pop("provenance"), "provenance: is missing"),
        (lambda r: r["config"].pop("setting"), "config.setting: is missing"),
        (lambda r: r["evaluation"]["runs"]["mimo"]["mean"].update({"ndcg@10": float("nan")}), "finite"),
        (
            lambda r: r["evaluation"]["runs"]["mimo"]["macro"].clear(),
            "macro of run 'mimo' lacks judged@10, ndcg@10",
        ),
        (lambda r: r["evaluation"]["runs"]["mimo"]["per_language"].pop("de"), "run 'mimo' lacks de"),
    ],
)
def test_a_results_object_that_is_not_one(change: Change, message: str, tmp_path: Path) -> None:
    results = _plain()
    change(results)
    with pytest.raises(ArtifactError) as caught:
        write_report(parse_results(results), tmp_path / "report")
    assert message in str(caught.value)
    assert "mimo reproduce" in str(caught.value)
    assert not (tmp_path / "report").exists()


def test_a_comparison_of_a_run_that_is_not_there() -> None:
    results = make_results(("de",), ("bm25", "mimo"), measures="ndcg@10")
    del results["evaluation"]["runs"]["bm25"]
    with pytest.raises(ArtifactError, match="comparisons name 'bm25', expected one of the runs"):
        parse_results(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r["language_bias"]["mimo"]["language_mix"]["shares"].pop(),
            "rows of [2] values, expected 2 rows",
        ),
        (
            lambda r: r["geometry"]["encoders"]["mimo"]["projection"]["points"].append([0.0, 0.0, 2, 0]),
            "points name language 2, expected less than 2",
        ),
        (
            lambda r: r["geometry"]["encoders"]["mimo"]["centroid_distances"]["languages"].append("x"),
            "distances have rows of [2, 2] values, expected 3 rows of 3",
        ),
    ],
)
def test_matrices_fit_their_languages(change: Change, message: str) -> None:
    results = make_results(("de", "fi"), ("mimo",), measures="ndcg@10")
    change(results)
    with pytest.raises(ArtifactError) as caught:
        parse_results(results)
    assert message in str(caught.value)


def test_all_problems_come_together() -> None:
    results = _plain()
    del results["provenance"], results["config"]["title"]
    with pytest.raises(ArtifactError) as caught:
        parse_results(results)
    assert len(str(caught.value).splitlines()) == 2


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    with pytest.raises(ArtifactError, match="holds figures of something else"):
        write_report(parse_results(_plain()), tmp_path)
    assert (tmp_path / "figures" / "mine.png").read_bytes() == b"mine"
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(ArtifactError, match=r"holds index\.html of something else"):
        write_report(parse_results(_plain()), tmp_path / "page")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="is a file, expected a directory"):
        write_report(parse_results(_plain()), tmp_path / "file")


def test_an_earlier_report_is_replaced_whole(tmp_path: Path) -> None:
    write_report(parse_results(_plain()), tmp_path)
    before = {path.name for path in (tmp_path / "tables").iterdir()}
    single = make_results(("de",), ("mimo",), measures="ndcg@10") | {"language_bias": {}, "geometry": None}
    write_report(parse_results(single), tmp_path)
    after = {path.name for path in (tmp_path / "tables").iterdir()}
    assert after < before
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "figures", "tables"}


def test_a_report_that_was_cut_short_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writing, "render_pages", cut_short)
        with pytest.raises(KeyboardInterrupt):
            write_report(parse_results(_plain()), tmp_path)
    assert list(tmp_path.iterdir()) == []
    # A kill between figures and tables.
    (tmp_path / "figures").mkdir()
    (tmp_path / ".report" / "tables").mkdir(parents=True)
    write_report(parse_results(_plain()), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "figures", "tables"}


def test_command_makes_the_report_again(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(_plain()), encoding="utf-8")
    said = CliRunner().invoke(report_command, [str(tmp_path)], catch_exceptions=False)
    assert said.output.strip() == str(tmp_path / "report" / "index.html")
    other = tmp_path / "elsewhere"
    CliRunner().invoke(
        report_command, [str(tmp_path / "results.json"), "--output", str(other)], catch_exceptions=False
    )
    assert (other / "index.html").read_bytes() == (tmp_path / "report" / "index.html").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "holds no JSON object"), ("{", "is not JSON"), (None, "cannot be read")]
)
def test_a_file_that_holds_no_results(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        read_results(tmp_path)
