"""From files to tables: `mimo evaluate` on BEIR folders, through the command line."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.beir import write_folder

from mimo_plugin.cli import main
from mimo_plugin.cli.evaluate import evaluate_command
from mimo_plugin.collections.records import ERROR, FIRST
from mimo_plugin.evaluation.options import Correction, SignificanceTest, TableFormat
from mimo_plugin.evaluation.runs import write_run

LANGUAGES = ("de", "fi", "ja")
TOPICS = {f"{language}{number}": language for language in LANGUAGES for number in range(6)}
DOCS = {f"{language}-d{number}": language for language in LANGUAGES for number in range(10)}
QRELS = {
    topic: {f"{language}-d{(3 * int(topic[-1]) + step) % 10}": step % 3 for step in range(4)}
    for topic, language in TOPICS.items()
    if topic != "ja5"
}


def _collection(directory: Path, qrels: dict[str, dict[str, int]] | None = QRELS) -> str:
    docs = [{"_id": doc, "title": "", "text": f"text {doc}", "lang": lang} for doc, lang in DOCS.items()]
    queries = [{"_id": topic, "text": f"text {topic}", "lang": lang} for topic, lang in TOPICS.items()]
    return write_folder(directory, docs, queries, qrels)


def _run(path: Path, quality: float) -> str:
    """A run whose scores are noise plus the relevance times `quality`."""
    rng = np.random.default_rng(int(10 * quality))
    items = []
    for topic in TOPICS:
        grades = [QRELS.get(topic, {}).get(doc, 0) for doc in DOCS]
        scores = rng.normal(size=len(DOCS)) + quality * np.array(grades)
        top = np.argsort(-scores)[:20]
        items.append((topic, [list(DOCS)[at] for at in top], scores[top]))
    write_run(path, items, "test")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("evaluate")
    return {
        "qrels": _collection(directory / "collection"),
        "bm25": _run(directory / "bm25.trec", 0.2),
        "e5": _run(directory / "e5.trec.gz", 1.0),
        "mimo": _run(directory / "mimo.trec", 3.0),
    }


def _mimo(*arguments: str) -> int:
    return main(["evaluate", *arguments, "--no-progress"])


def _json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def test_choices_on_the_command_line_are_those_of_the_library() -> None:
    offered = {
        option.name: list(option.type.choices)
        for option in evaluate_command.params
        if hasattr(option.type, "choices")
    }
    assert offered == {
        "test": list(SignificanceTest),
        "correction": list(Correction),
        "table_format": list(TableFormat),
        "duplicates": [ERROR, FIRST],
    }


def test_table_and_json(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "scores.json"
    runs = [files["bm25"], files["e5"], f"ours={files['mimo']}"]
    status = _mimo(*runs, "--qrels", files["qrels"], "--baseline", "bm25", "--json", str(out))
    printed = capsys.readouterr()
    assert status == 0, printed.err
    result = _json(out)
    assert result["measures"] == ["ndcg@10", "recall@100", "judged@10"]
    assert list(result["runs"]) == ["bm25", "e5", "ours"]
    ours = result["runs"]["ours"]
    assert ours["queries"] == {"judged": 17, "retrieved": 17, "missing": 0, "unjudged": 1, "unknown": 0}
    assert {language: row["queries"] for language, row in ours["per_language"].items()} == {
        "de": 6,
        "fi": 6,
        "ja": 5,
    }
    rows = ours["per_language"].values()
    assert ours["macro"]["ndcg@10"] == pytest.approx(np.mean([row["ndcg@10"] for row in rows]))
    assert ours["mean"]["ndcg@10"] == pytest.approx(sum(row["ndcg@10"] * row["queries"] for row in rows) / 17)
    # Two measures, two runs, three languages and all of them.
    assert [(c["measure"], c["run"], c["language"]) for c in result["comparisons"]] == [
        (m, r, lang)
        for m in ("ndcg@10", "recall@100")
        for r in ("e5", "ours")
        for lang in (*LANGUAGES, "all")
    ]
    for comparison in result["comparisons"]:
        assert {
            *("baseline", "run", "measure", "language", "difference", "ci_low", "ci_high", "effect_size"),
            *("wins", "ties", "losses", "p", "p_corrected", "significant", "queries", "note"),
        } == set(comparison)
        assert comparison["baseline"] == "bm25"
        assert comparison["wins"] + comparison["ties"] + comparison["losses"] == comparison["queries"]
    macro = next(c for c in result["comparisons"] if (c["run"], c["language"]) == ("ours", "all"))
    assert macro["difference"] == pytest.approx(
        ours["macro"]["ndcg@10"] - result["runs"]["bm25"]["macro"]["ndcg@10"]
    )
    assert macro["significant"]
    assert result["test"]["name"] == "student"
    assert result["test"]["correction"] == "holm"
    # The table says the same.
    line = next(line for line in printed.out.splitlines() if line.startswith("ours ") and "†" in line)
    assert f"{ours['macro']['ndcg@10']:.4f}†" in line
    assert f"{ours['mean']['ndcg@10']:.4f}" in line
    assert (
        "† differs from bm25: paired t test; p corrected by Holm over 2 pairs of runs x 3 languages"
        in printed.out
    )
    assert "has 20 hits a query at most, fewer than the cutoff of recall@100" in printed.err
    assert printed.err.count("warning") == 3


@pytest.mark.slow
@pytest.mark.parametrize("test", ["student", "permutation", "tukey-hsd"])
@pytest.mark.parametrize("table_format", ["text", "markdown", "latex"])
def test_every_test_in_every_format(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], test: str, table_format: str
) -> None:
    out, tables = tmp_path / "scores.json", tmp_path / "tables"
    runs = [files["bm25"], files["e5"], files["mimo"]]
    options = [
        "--test",
        test,
        "--format",
        table_format,
        "--measures",
        "ndcg@5",
        "map",
        "--permutations",
        "1000",
    ]
    paths = ["--json", str(out), "--output", str(tables)]
    assert _mimo(*runs, "--qrels", files["qrels"], "--baseline", "e5", *options, *paths) == 0
    assert capsys.readouterr().out == ""
    assert {c["run"] for c in _json(out)["comparisons"]} == {"bm25", "mimo"}
    text = tables.read_text("utf-8")
    assert text.count("\\begin{table}") == text.count("\\end{table}") == (5 if table_format == "latex" else 0)
    assert ("|:---" in text) == (table_format == "markdown")


def test_tukey_without_a_baseline_compares_all_pairs(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    runs = [files["bm25"], files["e5"], files["mimo"]]
    assert _mimo(*runs, "--qrels", files["qrels"], "--test", "tukey-hsd", "--json", str(out)) == 0
    pairs = {(c["baseline"], c["run"]) for c in _json(out)["comparisons"]}
    assert pairs == {("bm25", "e5"), ("bm25", "mimo"), ("e5", "mimo")}
    assert "mimo - e5" in capsys.readouterr().out


def test_runs_that_are_not_compared(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    assert _mimo(files["bm25"], files["mimo"], "--qrels", files["qrels"], "--json", str(out)) == 0
    assert (_json(out)["comparisons"], _json(out)["test"]) == ([], None)
    assert "runs were not compared: name one as --baseline" in capsys.readouterr().err


def test_pooled_ids(tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A single collection's run with pooled ids needs --pooled, others must not have it: messages say so."""
    run = tmp_path / "pooled.trec"
    lines = [line.split(" ") for line in Path(files["mimo"]).read_text("utf-8").splitlines()]
    # A folder in several languages has its own name for a prefix.
    pooled = [[f"collection:{line[0]}", "Q0", f"collection:{line[2]}", *line[3:]] for line in lines]
    run.write_text("".join(" ".join(line) + "\n" for line in pooled), encoding="utf-8")
    out = tmp_path / "scores.json"
    assert _mimo(str(run), "--qrels", files["qrels"]) == 1
    assert "evaluate it with --pooled" in capsys.readouterr().err
    assert _mimo(str(run), "--qrels", files["qrels"], "--pooled", "--json", str(out)) == 0
    with_prefix = _json(out)["runs"]["pooled"]
    assert _mimo(files["mimo"], "--qrels", files["qrels"], "--json", str(out)) == 0
    assert with_prefix == _json(out)["runs"]["mimo"]
    capsys.readouterr()
    assert _mimo(files["mimo"], "--qrels", files["qrels"], "--pooled") == 1
    assert "without --pooled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "messages"),
    [
        (
            ["{bm25}", "--qrels", "{qrels}", "--measures", "ndgc@10"],
            2,
            ["unknown measure 'ndgc@10'; near: ndcg"],
        ),
        (["{bm25}", "--qrels", "{qrels}", "--test", "wilcoxon"], 2, ["'wilcoxon' is not one of"]),
        (["{bm25}", "{bm25}", "--qrels", "{qrels}"], 1, ["two runs are named 'bm25'", "NAME=FILE"]),
        (["{bm25}", "none.trec", "--qrels", "{qrels}"], 1, ["none.trec: no such file, expected a TREC run"]),
        (
            ["{bm25}", "{mimo}", "--qrels", "{qrels}", "--baseline", "bm52"],
            2,
            ["unknown baseline 'bm52'; near: bm25"],
        ),
        (
            ["{bm25}", "{mimo}", "--qrels", "{qrels}", "--test", "tukey-hsd"],
            2,
            ["three runs or more, found 2"],
        ),
        (
            ["{bm25}", "{mimo}", "--qrels", "{qrels}", "--baseline", "mimo", "--alpha", "5"],
            2,
            ["alpha is 5.0"],
        ),
        (["{bm25}", "--qrels", "{qrels}", "--json", "."], 2, [".: is a directory"]),
        (
            ["{bm25}", "--qrels", "{qrels}", "--output", "{bm25}/x"],
            2,
            ["is not a directory where you may write"],
        ),
        (["{bm25}", "--qrels", "path:/none"], 1, ["/none"]),
        (
            [
                "{bm25}",
                "{mimo}",
                "--qrels",
                "{qrels}",
                "--alpha",
                "nan",
                "--measures",
                "ndgc",
                "--baseline",
                "x",
            ],
            2,
            ["alpha is nan", "unknown measure 'ndgc'", "unknown baseline 'x'"],
        ),
        (
            [
                *("{bm25}", "{bm25}", "none.trec", "--qrels", "path:/none", "{qrels}", "--measures", "ndgc"),
                *("--test", "student", "--json", "."),
            ],
            1,
            [
                *("two runs are named 'bm25'", "none.trec: no such file", "/none", "unknown measure 'ndgc'"),
                *("add --baseline NAME", ".: is a directory"),
            ],
        ),
        (
            [
                "{bm25}",
                "{mimo}",
                "--qrels",
                "{qrels}",
                "--measures=judged@5",
                "judged@10",
                "--test",
                "student",
            ],
            2,
            ["judged@5, judged@10: judged@k is no measure of quality", "add --baseline NAME"],
        ),
        (
            ["x={bm25}", "--qrels", "{qrels}", "--output", "{bm25}", "--json", "{bm25}"],
            2,
            ["bm25.trec: is the file of the run 'x', expected another", "bm25.trec: named for two outputs"],
        ),
        (["{bm25}", "--qrels", "{qrels}", "--json", "x" * 300], 2, ["File name too long"]),
        (["{bm25}"], 2, ["Missing option '--qrels'"]),
    ],
)
def test_bad_options(
    files: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    messages: list[str],
) -> None:
    assert _mimo(*(argument.format(**files) for argument in arguments)) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    for message in messages:
        assert message in printed.err


def test_all_bad_runs_are_reported_together_and_nothing_is_written(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.trec").write_text("q1 Q0 a 1 x t\nq1 Q0 a 1\n")
    (tmp_path / "empty.trec").write_text("")
    (tmp_path / "other.trec").write_text("7 Q0 a 1 1.0 t\n")
    (tmp_path / "open.trec").write_text("ja5 Q0 a 1 1.0 t\n")
    bad = [str(tmp_path / f"{name}.trec") for name in ("bad", "empty", "other", "open")]
    out = tmp_path / "scores.json"
    runs = [files["bm25"], *bad]
    assert _mimo(*runs, "--qrels", files["qrels"], "--json", str(out)) == 1
    lines = capsys.readouterr().err.replace(f"{tmp_path}/", "").splitlines()
    assert lines == [
        "mimo: bad.trec:1: score 'x', expected a finite number (trec_eval reads it as float32)",
        "mimo: bad.trec:2: 4 columns, expected 6 (query Q0 docid rank score tag)",
        "mimo: empty.trec: is empty, expected lines of six columns (query Q0 docid rank score tag)",
        "mimo: run 'other': 1 of its 1 queries are not topics of the collection (7); expected ids such as "
        "'de0': name the run's own collection, or leave them out with --ignore-unknown-queries",
        "mimo: run 'open' has no query in common with the qrels, expected ids such as 'de0': is it the run "
        "of another collection or split?",
    ]
    assert not out.exists()


def test_unknown_queries_can_be_left_out(files: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "more.trec"
    run.write_text(Path(files["mimo"]).read_text("utf-8") + "7 Q0 a 1 1.0 t\n", encoding="utf-8")
    out = tmp_path / "scores.json"
    assert (
        _mimo(
            str(run), files["mimo"], "--qrels", files["qrels"], "--ignore-unknown-queries", "--json", str(out)
        )
        == 0
    )
    more, plain = _json(out)["runs"].values()
    assert more.pop("queries") == {**plain.pop("queries"), "unknown": 1}
    assert more == plain


def test_languages_can_be_chosen(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [files["mimo"], "--qrels", files["qrels"], "--json", str(tmp_path / "scores.json")]
    assert _mimo(*common) == 0
    everything = _json(tmp_path / "scores.json")["runs"]["mimo"]["per_language"]
    assert _mimo(*common, "--languages", "ja", "de") == 0
    chosen = _json(tmp_path / "scores.json")["runs"]["mimo"]
    assert chosen["per_language"] == {name: everything[name] for name in ("de", "ja")}
    mean = (everything["de"]["ndcg@10"] + everything["ja"]["ndcg@10"]) / 2
    assert chosen["macro"]["ndcg@10"] == pytest.approx(mean, abs=1e-12)
    capsys.readouterr()
    for given in (["--languages", "ja,de"], ["--languages=ja", "de"], ["--languages", "ja, de"]):
        assert _mimo(*common, *given) == 0
        assert _json(tmp_path / "scores.json")["runs"]["mimo"] == chosen
    capsys.readouterr()
    assert _mimo(*common, "--languages", ",") == 2
    assert "unknown language ''" in capsys.readouterr().err
    assert _mimo(*common, "--languages", "jp", "de", "xx") == 2
    errors = capsys.readouterr().err
    assert "unknown language 'jp'; expected one of the judged topics' de, fi, ja" in errors
    assert "unknown language 'xx'" in errors


def test_a_collection_without_judgments(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _mimo(files["bm25"], "--qrels", _collection(tmp_path / "none", qrels=None)) == 1
    assert "qrels" in capsys.readouterr().err


@pytest.mark.slow
def test_one_topic_one_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to test with, but scores, reasons and valid JSON all the same."""
    docs = [{"_id": "a", "title": "", "text": "a"}, {"_id": "b", "title": "", "text": "b"}]
    spec = write_folder(tmp_path / "tiny", docs, [{"_id": "q", "text": "a"}], {"q": {"a": 1}})
    write_run(tmp_path / "good.trec", [("q", ["a", "b"], [2.0, 1.0])], "t")
    write_run(tmp_path / "poor.trec", [("q", ["a", "b"], [1.0, 2.0])], "t")
    out = tmp_path / "scores.json"
    runs = [str(tmp_path / "good.trec"), str(tmp_path / "poor.trec")]
    assert _mimo(*runs, "--qrels", spec, "--baseline", "poor", "--measures", "mrr", "--json", str(out)) == 0
    language, macro = _json(out)["comparisons"]
    assert (language["difference"], language["p"], language["note"]) == (
        0.5,
        None,
        "one topic has no variance",
    )
    assert (macro["p"], macro["ci_low"]) == (1.0, None)
    assert "one topic has no variance" in capsys.readouterr().out


def test_outputs_that_would_replace_a_run_under_another_name(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, link = tmp_path / "run.trec", tmp_path / "link"
    content = Path(files["bm25"]).read_text("utf-8")
    run.write_text(content, encoding="utf-8")
    link.symlink_to(run)
    (tmp_path / "sub").mkdir()
    new = tmp_path / "new"
    for output, json_file, message in (
        (link, new, "link: is the file of the run 'run'"),
        (tmp_path / "sub" / ".." / "run.trec", new, "run.trec: is the file of the run 'run'"),
        (new, tmp_path / "sub" / ".." / "new", "named for two outputs"),
    ):
        arguments = ["--output", str(output), "--json", str(json_file)]
        assert _mimo(str(run), "--qrels", files["qrels"], *arguments) == 2
        assert message in capsys.readouterr().err
    assert run.read_text("utf-8") == content
    assert not new.exists()


def test_judgments_that_contradict_each_other(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = _collection(tmp_path / "collection")
    (tmp_path / "bad.trec").write_text("de0 Q0 a 1 x t\n")
    qrels = tmp_path / "collection" / "qrels" / "test.tsv"
    out = tmp_path / "scores.json"
    common = [files["mimo"], "--qrels", spec, "--json", str(out)]
    assert _mimo(*common) == 0
    expected = _json(out)
    with qrels.open("a", encoding="utf-8") as stream:
        stream.write("de0\tde-d1\t1\n")
    assert _mimo(*common) == 0
    assert _json(out) == expected
    with qrels.open("a", encoding="utf-8") as stream:
        stream.write("de0\tde-d1\t2\nfi0\tfi-d0\t2\n")
    capsys.readouterr()
    assert _mimo(str(tmp_path / "bad.trec"), *common) == 1
    first, second, run = capsys.readouterr().err.splitlines()
    assert "query 'de0', document 'de-d1' is judged 1 and 2, expected one relevance" in first
    assert "query 'fi0', document 'fi-d0' is judged 0 and 2" in second
    assert "bad.trec:1: score 'x'" in run


def test_a_run_without_any_judged_hit_is_warned_about(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "prefixed.trec"
    lines = [line.split(" ") for line in Path(files["mimo"]).read_text("utf-8").splitlines()]
    run.write_text("".join(f"{' '.join([*line[:2], f'x:{line[2]}', *line[3:]])}\n" for line in lines))
    assert _mimo(str(run), files["mimo"], "--qrels", files["qrels"], "--measures", "ndcg@10") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "none of its hits is judged" in line]
    assert len(warnings) == 1
    assert "run 'prefixed'" in warnings[0]
    assert "its docids look like 'x:de-d" in warnings[0]
    assert "those of the qrels like 'de-d" in warnings[0]


def test_a_p_too_small_to_compute_is_an_upper_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = [{"_id": name, "title": "", "text": name} for name in ("a", "b", "c")]
    queries = [{"_id": f"q{number}", "text": "a"} for number in range(60)]
    spec = write_folder(tmp_path / "tiny", docs, queries, {query["_id"]: {"a": 1} for query in queries})
    orders = {"good": ["a", "b", "c"], "poor": ["b", "c", "a"], "same": ["b", "c", "a"]}
    for name, order in orders.items():
        items = [(query["_id"], order, [3.0, 2.0, 1.0]) for query in queries[1:]]
        items.append(("q0", ["b", "a", "c"], [3.0, 2.0, 1.0]))
        write_run(tmp_path / f"{name}.trec", items, "t")
    out = tmp_path / "scores.json"
    runs = [str(tmp_path / f"{name}.trec") for name in orders]
    options = ["--baseline", "good", "--measures", "mrr", "--test", "tukey-hsd", "--json", str(out)]
    assert _mimo(*runs, "--qrels", spec, *options) == 0
    languages = [c for c in _json(out)["comparisons"] if c["language"] != "all"]
    assert all(0 < c["p"] == c["p_corrected"] < 1e-60 for c in languages)
    assert all(c["note"].startswith("p is an upper bound") for c in languages)
    assert re.search(r"<\d\.\de-\d+ +<\d\.\de-\d+†", capsys.readouterr().out)


@pytest.mark.slow
def test_json_says_what_the_macro_test_resamples(tmp_path: Path, files: dict[str, str]) -> None:
    out = tmp_path / "scores.json"
    runs = [files["bm25"], files["mimo"], "--baseline", "bm25", "--json", str(out)]
    assert _mimo(*runs, "--qrels", files["qrels"]) == 0
    macro = _json(out)["test"]["macro"]
    assert macro["interval"] == "percentile bootstrap of topics, drawn within their language"
    together = {topic: {f"{lang}-d{topic[-1]}": 1 for lang in LANGUAGES} for topic in TOPICS}
    assert _mimo(*runs, "--qrels", _collection(tmp_path / "parallel", together)) == 0
    macro = _json(out)["test"]["macro"]
    assert macro["p"] == "randomisation of run labels within units (a topic in all its languages)"
    assert "one stratum" in macro["interval"]
    assert "different methods" in macro["note"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("relevance", "warning"),
    [
        ((0, 0), "none of the 2 judged topics has a relevant document"),
        ((1, 0), "1 of 2 judged topics have no relevant document"),
        ((1, 1), ""),
    ],
)
def test_topics_without_a_relevant_document_are_warned_about(
    relevance: tuple[int, int], warning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = [{"_id": name, "text": name, "lang": "de"} for name in ("a", "b")]
    queries = [{"_id": name, "text": name, "lang": "de"} for name in ("q", "r")]
    qrels = {"q": {"a": relevance[0]}, "r": {"b": relevance[1]}}
    spec = write_folder(tmp_path / "folder", docs, queries, qrels)
    run = tmp_path / "run.trec"
    run.write_text("".join(f"{query} Q0 {doc} 1 1.0 x\n" for query, doc in (("q", "a"), ("r", "b"))))
    assert _mimo(str(run), "--qrels", spec, "--measures", "success@1") == 0
    errors = capsys.readouterr().err
    assert (warning in errors) if warning else ("no relevant" not in errors)


def test_queries_that_are_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The query among its own hits takes a relevant document's place, unless it is left out."""
    docs = [{"_id": f"d{number}", "text": "x"} for number in range(4)]
    queries = [{"_id": "d0", "text": "x"}, {"_id": "d1", "text": "x"}]
    spec = write_folder(tmp_path / "c", docs, queries, {"d0": {"d2": 1}, "d1": {"d3": 1}})
    run = tmp_path / "run.trec"
    write_run(run, [("d0", ["d0", "d2", "d3"], [3, 2, 1]), ("d1", ["d1"], [1])], "t")
    scores = {}
    for option in ([], ["--remove-query"]):
        out = tmp_path / "scores.json"
        assert _mimo(str(run), "--qrels", spec, "--measures", "mrr@10", "--json", str(out), *option) == 0
        scores[len(option)] = json.loads(out.read_text())["runs"]["run"]
        told = capsys.readouterr().err
        assert ("first hit of 2 of 2 queries has the query's own id" in told) is not bool(option)
    assert (scores[0]["mean"]["mrr@10"], scores[1]["mean"]["mrr@10"]) == (0.25, 0.5)
    # d1 has nothing left, and scores 0 all the same.
    assert scores[1]["queries"]["missing"] == 1


def test_a_judged_id_that_no_query_has_is_no_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = [{"_id": "d0", "text": "x", "lang": "de"}]
    queries = [{"_id": "q1", "text": "x", "lang": "de"}, {"_id": "q2", "text": "x", "lang": "fi"}]
    judged = {"q1": {"d0": 1}, "q2": {"d0": 1}, "gone": {"d0": 1}}
    spec = write_folder(tmp_path / "c", docs, queries, judged)
    write_run(tmp_path / "a.trec", [("q1", ["d0"], [1.0])], "t")
    write_run(tmp_path / "b.trec", [("q1", ["d0"], [1.0]), ("q2", ["d0"], [1.0])], "t")
    out = tmp_path / "scores.json"
    files = [str(tmp_path / name) for name in ("a.trec", "b.trec")]
    assert _mimo(*files, "--qrels", spec, "--measures", "mrr@10", "--baseline", "a", "--json", str(out)) == 0
    assert "they are in no language and not in the macro average" in capsys.readouterr().err
    found = json.loads(out.read_text())
    assert found["topics"]["languages"] == {"de": 1, "fi": 1}
    assert set(found["runs"]["a"]["per_language"]) == {"de", "fi"}
    assert found["runs"]["a"]["macro"]["mrr@10"] == 0.5
    assert found["runs"]["a"]["mean"]["mrr@10"] == pytest.approx(1 / 3)
    assert {row["language"] for row in found["comparisons"]} == {"de", "fi", "all"}
    assert next(row["difference"] for row in found["comparisons"] if row["language"] == "all") == 0.5
