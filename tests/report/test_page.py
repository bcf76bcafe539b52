"""The page: its numbers are the results', it needs nothing but itself, and it reads anything as a name."""

import base64
import csv
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from helpers.pages import Page, ReadCell
from helpers.report_samples import DEBIAN, MIRACL, SUBSET, make_per_topic, make_results

from mimo_plugin.cli import main
from mimo_plugin.cli.benchmark import reproduce_command
from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.evaluation.options import SignificanceTest
from mimo_plugin.evaluation.per_topic import PerTopicResults
from mimo_plugin.evaluation.results import parse_results
from mimo_plugin.report.bias_tables import commands
from mimo_plugin.report.page import short, write_report
from mimo_plugin.report.tables import verdict

# A figure takes about a second: fusions have no geometry.
SMALL: dict[str, Any] = {
    "languages": ("de", "fi", "ja"),
    "systems": ("bm25", "mimo", "bm25+mimo"),
    "measures": "ndcg@10,mrr@10",
}
CASES: dict[str, dict[str, Any]] = {
    "three languages": SMALL,
    "one language": {"languages": ("de",), "systems": ("bm25", "mimo"), "setting": "multi-monolingual"},
    "one system": {**SMALL, "systems": ("mimo",), "skipped": True},
    "all pairs": {**SMALL, "systems": ("bm25", "bm25+e5", "bm25+mimo"), "test": SignificanceTest.TUKEY_HSD},
    "18 languages": {
        "languages": MIRACL,
        "systems": ("bm25", "bm25+mimo"),
        "measures": "ndcg@10",
        "setting": "mixed-monolingual",
    },
}


@cache
def _report(case: str) -> tuple[dict[str, Any], Page, TemporaryDirectory[str]]:
    results = make_results(**CASES[case])
    place = TemporaryDirectory()
    return (
        results,
        Page(write_report(parse_results(results), Path(place.name)).read_text(encoding="utf-8")),
        place,
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_json(case: str) -> None:
    results, page, _ = _report(case)
    evaluation = results["evaluation"]
    several = len(evaluation["topics"]["languages"]) > 1
    overall = page.tables["table-scores"]
    labels = {name: system["label"] for name, system in results["systems"].items()}
    averages = ("macro", "mean") if several else ("mean",)
    for name, run in evaluation["runs"].items():
        wanted = [run[average][measure] for measure in evaluation["measures"] for average in averages]
        assert [cell.value for cell in overall.row(labels[name])[1:]] == wanted
    for measure in evaluation["measures"] if several else ():
        table = page.tables[f"table-scores-{measure.replace('@', '-')}"]
        for language, topics in evaluation["topics"]["languages"].items():
            wanted = [run["per_language"][language][measure] for run in evaluation["runs"].values()]
            row = table.row(language)
            assert row[1].value == topics
            assert [cell.value for cell in row[2 : 2 + len(wanted)]] == wanted
        for average in ("macro", "mean"):
            wanted = [run[average][measure] for run in evaluation["runs"].values()]
            assert [cell.value for cell in table.row(average)[2 : 2 + len(wanted)]] == wanted


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case != "one system")) for case in CASES]
)
def test_what_is_shown_is_what_is_exact_rounded(case: str) -> None:
    _, page, _ = _report(case)
    cells = [
        cell for table in page.tables.values() for row in table.rows for cell in row if cell.value is not None
    ]
    assert len(cells) > 50
    for cell in cells:
        shown = cell.text.lstrip("<").replace("−", "-").replace(",", "")
        if " " in shown or "/" in shown:  # 4.5 MiB, 2.5 min
            continue
        assert cell.value is not None
        digits = len(shown.partition(".")[2].partition("e")[0])
        scale = 10.0 ** int(shown.partition("e")[2] or 0)
        assert abs(float(shown) - cell.value) <= 0.5000001 * scale * 10.0**-digits


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_comparisons_are_those_of_the_json(case: str) -> None:
    results, page, _ = _report(case)
    comparisons = results["evaluation"]["comparisons"]
    several = len(results["evaluation"]["topics"]["languages"]) > 1
    shown = [one for one in comparisons if several or one["language"] != "all"]
    fields = (
        "queries",
        "difference",
        "ci_low",
        "ci_high",
        "effect_size",
        "wins",
        "ties",
        "losses",
        "p",
        "p_corrected",
    )
    rows = [
        [cell.value for cell in row[1:]]
        for name, table in page.tables.items()
        if name.startswith("table-differences-")
        for row in table.rows[1:]
        if len(row) > 1
    ]
    assert rows == [[one[field] for field in fields] for one in shown]


@pytest.mark.parametrize("case", CASES)
def test_best_and_significant_are_marked(case: str) -> None:
    results, page, _ = _report(case)
    evaluation = results["evaluation"]
    if len(evaluation["topics"]["languages"]) == 1:
        return
    for measure in evaluation["measures"]:
        table = page.tables[f"table-scores-{measure.replace('@', '-')}"]
        for language in evaluation["topics"]["languages"]:
            row = table.row(language)[2 : 2 + len(evaluation["runs"])]
            _check_row(row, measure)
            for name, cell in zip(evaluation["runs"], row, strict=True):
                wanted = any(
                    one["significant"]
                    for one in evaluation["comparisons"]
                    if one["baseline"] == evaluation["test"]["baseline"]
                    and (one["run"], one["measure"], one["language"]) == (name, measure, language)
                )
                assert cell.marked == wanted
            # Published scores are not in the contest.
            assert not any(cell.best for cell in table.row(language)[2 + len(evaluation["runs"]) :])


def _check_row(row: list[ReadCell], measure: str) -> None:
    if measure.startswith("judged") or len(row) < 2:
        assert not any(cell.best for cell in row)
        return
    highest = max(row, key=lambda cell: cell.value or 0.0)
    assert [cell.best for cell in row] == [cell.text == highest.text for cell in row]


@pytest.mark.parametrize("case", CASES)
def test_language_bias_and_geometry_are_those_of_the_json(case: str) -> None:
    results, page, _ = _report(case)
    labels = {name: system["label"] for name, system in results["systems"].items()}
    for name, bias in results["language_bias"].items():
        gap = bias["cross_lingual_gap"] or {"same": None, "other": None, "gap": None}
        means = [(bias[part] or {"mean": None})["mean"] for part in ("peer", "peer_raw", "mrc", "awrf")]
        preference = (bias["same_language_preference"] or {"mean": None})["mean"]
        mix = bias["language_mix"]
        wanted = [*means, preference, mix["own"], mix["entropy"], gap["same"], gap["other"], gap["gap"]]
        row = page.tables["table-language-bias"].row(labels[name])
        assert [cell.value for cell in row[1:]] == wanted
        assert all((cell.text == "–") == (cell.value is None) for cell in row[1:])
        table = page.tables[f"table-language-mix-{name.replace('+', '-')}"]
        shares = [[cell.value for cell in row[1:]] for row in table.rows[2:]]
        assert shares == mix["shares"]
        for reason in bias["skipped"].values():
            assert any(reason in text for text in page.text)
    for label, encoder in (results["geometry"] or {"encoders": {}})["encoders"].items():
        probe = encoder["separability"] or {"centroid": None, "knn": None, "chance": None}
        wanted = [encoder[name] for name in ("dimension", "alignment", "uniformity")]
        wanted += [probe[name] for name in ("centroid", "knn", "chance")]
        assert [cell.value for cell in page.tables["table-geometry"].row(label)[1:]] == wanted


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_loaded_and_nothing_is_broken(case: str) -> None:
    _, page, place = _report(case)
    html = Path(place.name, "index.html").read_text(encoding="utf-8")
    ids = set(page.ids)
    assert len(ids) == len(page.ids)
    assert page.wrong == []
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.elements)
    assert page.elements.count("script") == 1
    assert f"script-src 'sha256-{_hash(page.script)}';" in html
    for address in page.loaded:
        assert address.startswith("data:image/png;") or address.removeprefix("#") in ids, address[:80]
    for address in page.links:
        file = address[0] not in "#h" and Path(place.name, address).is_file()
        assert address.startswith("https://doi.org/") or file or (address[0] == "#" and address[1:] in ids)
    assert set(page.referred) <= ids


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def test_files_hold_every_digit(tmp_path: Path) -> None:
    results, page, place = _report("three languages")
    tables = Path(place.name, "tables")
    rows = list(csv.reader(tables.joinpath("scores-ndcg-10.csv").open(encoding="utf-8", newline="")))
    runs = results["evaluation"]["runs"]
    by_language = {row[0]: row for row in rows[1:]}
    for language in results["config"]["languages"]:
        found = [float(cell) for cell in by_language[language] if _is_score(cell)][1:]
        assert {run["per_language"][language]["ndcg@10"] for run in runs.values()} <= set(found)
    names = {path.stem for path in tables.iterdir()}
    assert {f"table-{name}" for name in names} == set(page.tables)
    assert {path.suffix for path in tables.iterdir()} == {".csv", ".tex"}
    figures = {path.name for path in Path(place.name, "figures").iterdir()}
    shown = {
        id_.removeprefix("figure-") for id_ in page.ids if id_.startswith("figure-") and id_.count("-title")
    }
    assert figures == {f"{name.removesuffix('-title')}.{form}" for name in shown for form in ("svg", "png")}


def _is_score(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


@pytest.mark.slow
def test_labels_stand_beside_every_number(tmp_path: Path) -> None:
    results = make_results(
        ("de", "fi"), ("bm25", "mimo"), setting="mixed-monolingual", subset=True, measures="ndcg@10"
    )
    html = write_report(parse_results(results), tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    wanted = [SUBSET, "judged in the query's own language only"]
    captions = html.split("<figcaption>")[1:]
    assert len(captions) > 5
    for label in wanted:
        assert all(label in table.caption for table in page.tables.values())
        escaped = label.replace("'", "&#39;")
        assert all(escaped in caption.split("</figcaption>")[0] for caption in captions)
        assert escaped in html.split("<nav")[0]
        for file in (tmp_path / "tables").glob("*.csv"):
            lines = list(csv.reader(file.open(encoding="utf-8", newline="")))
            assert lines[0][-1] == "label"
            assert all(label in line[-1] for line in lines[1:])
        for file in (tmp_path / "tables").glob("*.tex"):
            (caption,) = [
                line for line in file.read_text(encoding="utf-8").splitlines() if "\\caption{" in line
            ]
            assert label in caption
        for file in (tmp_path / "figures").glob("*.svg"):
            assert label.split()[0] in file.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = make_results(("de", "fi"), ("bm25", "mimo"), measures="ndcg@10")
    write_report(parse_results(results), tmp_path / "a")
    # Written before, and read back from the file: neither may matter.
    write_report(parse_results(make_results(("fi", "de"), ("mimo",), measures="mrr@10")), tmp_path / "b")
    write_report(parse_results(json.loads(json.dumps(results))), tmp_path / "b")
    first, second = (dict(_files(tmp_path / name)) for name in ("a", "b"))
    assert list(first) == list(second)
    assert first == second


def _files(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(directory)), path.read_bytes()


NASTY = {
    "bm25": '<script>alert("1")</script>',
    "mimo": "a$b_c%d#e&f{g}h~i^j\\k\"l'm|n",
    "e5": "_中文 العربية \u202e $x^{\x00\x1b\ud800",
}


@pytest.mark.slow
def test_names_may_hold_anything(tmp_path: Path) -> None:
    results = _renamed(
        make_results(("de", "fi"), tuple(NASTY), measures="ndcg@10"), {**NASTY, "fi": "</td><b>ﬁ"}
    )
    for name, system in results["systems"].items():
        system["label"] = name
    results["reference"][0] |= {"url": "javascript:alert(1)", "source": "<img src=x onerror=alert(1)>"}
    results["config"] |= {"title": "</title><script>x</script>", "note": "<style>*{display:none}</style>"}
    html = write_report(parse_results(results), tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert page.wrong == []
    assert (page.elements.count("script"), page.elements.count("img")) == (1, 0)
    assert "alert" not in page.script
    assert page.elements.count("style") == 1
    assert not any(address.startswith("javascript") for address in page.links)
    rows = [row[0].text for row in page.tables["table-scores"].rows]
    assert NASTY["bm25"] in rows
    assert NASTY["mimo"] in rows
    assert "_中文 العربية \u202e $x^{\\x00\\x1b\\ud800" in rows
    assert "</td><b>ﬁ" in [row[0].text for row in page.tables["table-scores-ndcg-10"].rows]
    cells = [
        cell
        for line in csv.reader((tmp_path / "tables" / "scores.csv").open(encoding="utf-8"))
        for cell in line
    ]
    assert NASTY["mimo"] in cells
    latex = (tmp_path / "tables" / "scores.tex").read_text(encoding="utf-8")
    assert (
        r"a\$b\_c\%d\#e\&f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k\textquotedbl{}l'm"
        in latex
    )
    for path in tmp_path.rglob("*"):
        assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {names.get(key, key): _renamed(part, names) for key, part in value.items()}
    return [_renamed(part, names) for part in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_report_of_a_real_evaluation(tmp_path: Path) -> None:
    """Runs over the packaged sample, scored by the command."""
    scores = tmp_path / "scores.json"
    runs = [str(_run(tmp_path / f"{name}.trec", noise)) for name, noise in (("poor", 3.0), ("good", 1.0))]
    arguments = ["evaluate", *runs, "--qrels", "mimo-sample", "--baseline", "poor", "--json", str(scores)]
    assert main([*arguments, "--measures", "ndcg@10", "--permutations", "1000"]) == 0
    results = make_results(DEBIAN, ("poor", "good"), measures="ndcg@10") | {
        "geometry": None,
        "language_bias": {},
    }
    results["evaluation"] = json.loads(scores.read_text(encoding="utf-8"))
    page = Page(write_report(parse_results(results), tmp_path / "report").read_text(encoding="utf-8"))
    found = results["evaluation"]["runs"]
    assert len(found["good"]["per_language"]) > 10
    table = page.tables["table-scores-ndcg-10"]
    for language, scores_of in found["good"]["per_language"].items():
        assert table.row(language)[3].value == scores_of["ndcg@10"]
    macro = page.tables["table-scores"].row("good")[1]
    assert (macro.value, macro.best, macro.marked) == (found["good"]["macro"]["ndcg@10"], True, True)


def _run(path: Path, noise: float) -> Path:
    """Relevant documents score 1, others 0, with noise."""
    rng = np.random.default_rng(7)
    pool = load("mimo-sample")
    judged: dict[str, list[str]] = {}
    for qrel in pool.qrels_iter():
        judged.setdefault(qrel.query_id, []).append(qrel.doc_id)
    documents = [doc.doc_id for doc in pool.docs_iter()]
    lines = []
    for query_id, relevant in judged.items():
        others = [documents[place] for place in rng.integers(0, len(documents), 20)]
        scored = {docid: (docid in relevant) + noise * rng.random() for docid in [*others, *relevant]}
        ranked = sorted(scored.items(), key=lambda pair: -pair[1])
        lines += [
            f"{query_id} Q0 {docid} {rank} {score} x\n" for rank, (docid, score) in enumerate(ranked, 1)
        ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_page_without_what_is_not_there(tmp_path: Path) -> None:
    results = make_results(DEBIAN, ("bm25",), measures="ndcg@10")
    results |= {"language_bias": {}, "geometry": None, "reference": [], "warnings": []}
    page = Page(write_report(parse_results(results), tmp_path).read_text(encoding="utf-8"))
    assert {"scores", "systems", "provenance"} <= set(page.ids)
    assert not {"language-bias", "geometry", "differences", "warnings"} & set(page.ids)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"ranking.png", "ranking.svg"}


@pytest.mark.parametrize(
    "words",
    [
        "debian --encoder m/mimo x=m/xlco --run colbert.trec --docs judged+9 --output out",
        "eval_configs/debian.yaml --no-progress --encoder=m/mimo --encoder x=m/xlco --run c=colbert.trec",
        "--suite paper --data hub:a/b --encoder m/mimo m/xlco --run colbert.trec --baseline mimo --bm25",
    ],
)
def test_a_command_of_each_system(words: str) -> None:
    """Each is the whole command with the other systems left out, as the command line itself reads them."""
    results = make_results(("de",), ("bm25", "mimo", "xlco", "colbert", "bm25+mimo"), measures="ndcg@10")
    results["systems"]["colbert"] |= {"kind": "run", "encoder": None}
    results["provenance"]["command"] = f"mimo reproduce {words}"
    whole = _read(results["provenance"]["command"])
    encoders, runs = whole["encoders"], whole["runs"]
    found = commands(parse_results(results))
    wanted = {
        "bm25": ((), (), True),
        "mimo": (encoders[:1], (), False),
        "xlco": (encoders[1:], (), False),
        "colbert": ((), runs, False),
        "bm25+mimo": (encoders[:1], (), True),
    }
    assert set(found) == set(wanted)
    for system, command in found.items():
        read = _read(command)
        assert (read["encoders"], read["runs"], read["bm25"]) == wanted[system]
        assert read["config"] == whole["config"] or whole["suite"]
        assert read["baseline"] is read["suite"] is None
        assert all(read[name] == whole[name] for name in ("docs", "data", "progress"))
    outputs = {_read(command)["output"] for command in found.values()}
    assert len(outputs) == len(found)
    assert whole["output"] not in outputs


def _read(command: str) -> dict[str, Any]:
    return reproduce_command.make_context("reproduce", shlex.split(command)[2:]).params


@pytest.mark.parametrize("command", ["", "python script.py", "mimo reproduce 'open quote"])
def test_a_command_where_none_is_known(command: str) -> None:
    results = make_results(("de",), ("bm25", "mimo"), measures="ndcg@10")
    results["provenance"]["command"] = command
    found = commands(parse_results(results))
    assert found["mimo"] == (
        "mimo reproduce debian --no-bm25 --encoder mimo=models/mimo --output indexes/debian-mimo"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/data/student/stage2/model", "…/stage2/model"),
        ("path:/home/me/data/debian/test, miracl/sw/dev", "path:…/debian/test, miracl/sw/dev"),
        ("'../../old/runs/bm25.trec' differs", "'…/runs/bm25.trec' differs"),
        (
            "https://doi.org/10.1162/tacl_a_00595/more/of/it",
            "https://doi.org/10.1162/tacl_a_00595/more/of/it",
        ),
        ("intfloat/multilingual-e5-small, a/b/c/d, 1/2/3", "intfloat/multilingual-e5-small, a/b/c/d, 1/2/3"),
        ("/data/run.trec", "/data/run.trec"),
    ],
)
def test_local_paths_are_shortened(text: str, shown: str) -> None:
    assert short(text) == shown


def test_the_first_sentence_says_who_wins() -> None:
    results = parse_results(make_results(("de", "fi"), ("bm25", "mimo", "e5"), measures="ndcg@10,mrr@10"))
    runs, test = results.evaluation.runs, results.evaluation.test
    assert test is not None
    for sentence, measure in zip(verdict(results), ("ndcg@10", "mrr@10"), strict=True):
        best = max(runs, key=lambda name: runs[name].macro[measure] or 0.0)
        label = results.systems[best].label
        assert sentence.startswith(f"{label} has the best ")
        assert f"{runs[best].macro[measure]:.4f}" in sentence
        other = {test.baseline, best} if best != test.baseline else {best, _second(runs, measure)}
        (one,) = [
            one
            for one in results.evaluation.comparisons
            if {one.run, one.baseline} == other and (one.measure, one.language) == (measure, "all")
        ]
        assert f"{abs(one.difference):+.4f} over" in sentence
        assert sentence.endswith(": significant." if one.significant else ": not significant.")


def _second(runs: Mapping[str, Any], measure: str) -> str:
    return sorted(runs, key=lambda name: -runs[name].macro[measure])[1]


def test_topics_of_other_results_are_refused(tmp_path: Path) -> None:
    results = make_results(("de",), ("bm25",), measures="ndcg@10")
    topics = PerTopicResults.model_validate({**make_per_topic(results), "fingerprints": {"run": "0"}})
    with pytest.raises(ArtifactError, match="belongs to other results"):
        write_report(parse_results(results), tmp_path, topics)
    assert list(tmp_path.iterdir()) == []
