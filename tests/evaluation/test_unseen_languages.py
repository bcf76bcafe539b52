"""Languages that encoders were not trained on: marked in every table, and averaged by themselves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.beir import write_folder
from helpers.checkpoints import plain_xlmr
from helpers.evaluation_samples import NDCG, as_scores, monolingual
from helpers.report_samples import make_results

from mimo_plugin.cli import main
from mimo_plugin.core.errors import UsageError
from mimo_plugin.evaluation.evaluate import Evaluation
from mimo_plugin.evaluation.measures import parse_measures
from mimo_plugin.evaluation.results import parse_results
from mimo_plugin.evaluation.trained_on import parse_seen_languages, write_seen
from mimo_plugin.report.page import make_sections

TOPICS = monolingual({"de": 4, "el": 2, "fi": 3})
(JUDGED,) = parse_measures("judged@10")


def _evaluation(**seen: str) -> Evaluation:
    rng = np.random.default_rng(5)
    scores = as_scores(TOPICS, **{name: rng.random(9) for name in ("bm25", "mimo", "e5")})
    for score in scores:
        score.per_topic[JUDGED] = np.zeros(9)  # type: ignore[index]
    languages = {name: frozenset(text.split(",")) for name, text in seen.items()}
    return Evaluation(TOPICS, (NDCG,), JUDGED, tuple(scores), seen_languages=languages)


def test_averages_of_seen_and_unseen_languages() -> None:
    found = _evaluation(mimo="de,en").result
    mimo = found.runs["mimo"]
    by_language = {language: values["ndcg@10"] for language, values in mimo.per_language.items()}
    assert mimo.unseen_languages == ("el", "fi")
    assert mimo.apart["seen"]["ndcg@10"] == by_language["de"]
    assert mimo.apart["unseen"]["ndcg@10"] == pytest.approx((by_language["el"] + by_language["fi"]) / 2)
    # Runs of unknown training have averages over the same languages, and no marks.
    for name in ("bm25", "e5"):
        run = found.runs[name]
        assert run.unseen_languages == ()
        assert run.apart["seen"]["ndcg@10"] == run.per_language["de"]["ndcg@10"]
    frame = _evaluation(mimo="de,en").to_frame()
    assert list(frame.loc["mimo"].index) == ["de", "el", "fi", "macro", "seen", "unseen", "mean"]


def test_where_runs_do_not_agree_the_unknown_has_no_such_average() -> None:
    found = _evaluation(mimo="de", e5="de,el").result
    assert found.runs["bm25"].apart == {}
    assert found.runs["e5"].unseen_languages == ("fi",)
    all_unseen = _evaluation(mimo="sw").result.runs["mimo"].apart
    assert all_unseen["seen"]["ndcg@10"] is None
    assert all_unseen["unseen"]["ndcg@10"] == pytest.approx(
        _evaluation().result.runs["mimo"].macro["ndcg@10"], abs=1e-15
    )


def test_nothing_is_added_where_all_are_seen() -> None:
    plain = _evaluation().result.to_json()
    assert _evaluation(mimo="de,el,fi", e5="de,el,fi").result.to_json() == plain
    assert "unseen" not in plain


def test_tables_mark_languages_by_the_runs_that_lack_them() -> None:
    text = _evaluation(mimo="de", e5="de,el").render()
    assert "run de el* fi** macro seen unseen mean" in " ".join(text.split())
    lacking = "not among the training languages of"
    # el is lacking in mimo's, fi in both.
    assert f"* {lacking} mimo.\n** {lacking} mimo, e5." in text
    assert "seen, unseen: macro averages" in text
    assert "not among" not in _evaluation().render()


def test_report_marks_every_table_of_languages() -> None:
    content = make_results(languages=("cs", "da", "de"))
    run = content["evaluation"]["runs"]["mimo"]
    run["unseen_languages"] = ["da"]
    measures = content["evaluation"]["measures"]
    run["apart"] = {"seen": dict.fromkeys(measures, 0.25), "unseen": dict.fromkeys(measures, 0.125)}
    sections = make_sections(parse_results(content))
    tables = {
        table.name: table
        for section in sections
        for part in section.parts
        if hasattr(table := getattr(part, "table", part), "rows")
    }
    for name in ("scores-ndcg-10", "differences-ndcg-10", "mrc-by-language"):
        first = [row[0] for row in tables[name].rows]
        assert "da*" in first
        assert "de" in first
        assert any("* not among the training languages of mimo." in note.text for note in tables[name].notes)
    rows = {row[0]: row[1:] for row in tables["scores-ndcg-10"].rows}
    assert (rows["seen"][-2:], rows["unseen"][-2:]) == (["0.2500", "–"], ["0.1250", "–"]) or (
        "0.2500" in rows["seen"] and "0.1250" in rows["unseen"]
    )
    assert tables["scores"].headers[1:5] == ["macro", "seen", "unseen", "mean"]


def test_seen_languages_as_given() -> None:
    names = ["a", "b"]
    assert parse_seen_languages("de,fi", names) == {"a": {"de", "fi"}, "b": {"de", "fi"}}
    assert parse_seen_languages(["a=de", "a=fi ja"], names) == {"a": {"de", "fi", "ja"}}
    assert parse_seen_languages({"b": ["de"]}, names) == {"b": {"de"}}
    assert parse_seen_languages((), names) == {}
    with pytest.raises(UsageError, match="seen languages of 'c'; expected one of the runs a, b"):
        parse_seen_languages(["c=de"], names)


def test_evaluate_knows_what_a_student_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(lang, number) for number in range(3) for lang in ("de", "fi")]
    docs = [{"_id": f"{lang}:{n}", "text": f"Text {lang} {n}", "lang": lang} for lang, n in pairs]
    queries = [{"_id": f"{lang}:q{n}", "text": f"number {n}", "lang": lang} for lang, n in pairs]
    qrels = {f"{lang}:q{n}": {f"{other}:{n}": 1 for other in ("de", "fi")} for lang, n in pairs}
    folder = write_folder(tmp_path / "set", docs, queries, qrels)
    plain_xlmr(tmp_path / "student")
    write_seen(tmp_path / "student", ["other texts"], languages=["en", "fi"])
    index, run = str(tmp_path / "index"), tmp_path / "mine.trec"
    assert main(["index", folder, "--encoder", str(tmp_path / "student"), "--output", index]) == 0
    assert main(["search", index, "--topics", folder, "--output", str(run)]) == 0
    shutil.copy(run, tmp_path / "copy.trec")
    scores = tmp_path / "scores.json"
    command = ["evaluate", str(run), str(tmp_path / "copy.trec"), "--qrels", folder, "--json", str(scores)]

    def evaluated(*options: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*command, *options]) == 0
        found: dict[str, Any] = json.loads(scores.read_text())["runs"]
        return found

    found = evaluated()
    assert found["mine"]["unseen_languages"] == ["de"]
    assert "unseen_languages" not in found["copy"]
    assert found["copy"]["apart"] == found["mine"]["apart"]
    assert "de*" in capsys.readouterr().out
    found = evaluated("--seen-languages", "copy=de,fi")
    assert found["mine"]["unseen_languages"] == ["de"]
    assert "unseen_languages" not in found["copy"]
    assert evaluated("--seen-languages", "de")["mine"]["unseen_languages"] == ["fi"]
    assert main([*command, "--seen-languages", "other=de"]) == 2
