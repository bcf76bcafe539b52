"""Slices of topics: each is what an evaluation of its topics alone gives, corrected over all of them."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from helpers.beir import write_folder
from helpers.evaluation_samples import NDCG, as_scores, monolingual, parallel
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

import mimo_plugin as mimo
from mimo_plugin.cli import main
from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.compare import compare_runs
from mimo_plugin.evaluation.evaluate import Evaluation
from mimo_plugin.evaluation.options import Correction, SignificanceTest, TableFormat
from mimo_plugin.evaluation.results import EvaluationResult, SliceResult
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.slices import Slices, compare_slices
from mimo_plugin.evaluation.topics import Topics

WORLDS = {
    "parallel": parallel(["de", "fi", "ja"], 12),
    "monolingual": monolingual({"de": 15, "fi": 9}),
    "one language": monolingual({"de": 24}),
}
NAMES = ("base", "e5", "mimo")


def _slices(topics: Topics) -> dict[str, list[str]]:
    """Overlapping slices by the number in a topic's id; the last topics are in none."""
    found: dict[str, list[str]] = {}
    for query_id in topics.query_ids:
        number = int(query_id[-4:])
        names = ["even"] * (number % 2 == 0) + ["low"] * (number < 5) if number < 8 else []
        found[query_id] = names
    return found


def _scores(topics: Topics) -> Any:
    rng = np.random.default_rng(3)
    base = rng.random(len(topics.query_ids)) / 2
    return as_scores(
        topics, **{name: base + 0.05 * at + 0.2 * rng.random(len(base)) for at, name in enumerate(NAMES)}
    )


def _compared(
    topics: Topics, slices: Mapping[str, Any], plan: Plan, pairs: list[tuple[int, int]]
) -> tuple[Slices, dict[str, SliceResult]]:
    found = Slices.of(slices, topics)
    return found, compare_slices(found, _scores(topics), topics, [NDCG], pairs, plan)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("test", [SignificanceTest.STUDENT, SignificanceTest.TUKEY_HSD])
def test_a_slice_is_an_evaluation_of_its_topics(world: str, test: SignificanceTest) -> None:
    topics, plan = WORLDS[world], Plan(test, Correction.BONFERRONI, permutations=1000)
    pairs = [(0, 1), (0, 2)]
    slices, found = _compared(topics, _slices(topics), plan, pairs)
    assert list(found) == ["even", "low"]
    assert slices.unsliced == sum(not names for names in _slices(topics).values())
    families = len(found) if test is SignificanceTest.TUKEY_HSD else len(found) * len(pairs)
    for name, part in found.items():
        kept = np.flatnonzero(slices.members[name])
        alone = topics.restricted({at: topics.judged[at] for at in kept.tolist()})
        scores = _scores(topics)
        for score in scores:
            score.per_topic[NDCG] = score.per_topic[NDCG][kept]
        language = "all" if len(topics.languages) > 1 else "de"
        expected = [
            one for one in compare_runs(scores, alone, [NDCG], pairs, plan) if one.language == language
        ]
        ignored = {"p_corrected": None, "significant": None}
        assert [one.model_copy(update=ignored) for one in part.comparisons] == [
            one.model_copy(update=ignored) for one in expected
        ]
        assert [one.p_corrected for one in part.comparisons] == pytest.approx(
            [min(1.0, (one.p or 0) * families) for one in expected]
        )
        assert (part.topics, part.units) == (len(kept), alone.blocks)
        for one in part.comparisons:
            change = part.macro[one.run]["ndcg@10"] - part.macro["base"]["ndcg@10"]
            assert one.difference == pytest.approx(change, abs=1e-12)


def test_one_language_is_tested_as_scipy_does_and_corrected_over_slices_and_runs() -> None:
    topics = WORLDS["one language"]
    slices, found = _compared(
        topics, _slices(topics), Plan(SignificanceTest.STUDENT, Correction.HOLM), [(0, 1), (0, 2)]
    )
    values = {score.name: score.per_topic[NDCG] for score in _scores(topics)}
    expected = [
        ttest_rel(values[run][slices.members[name]], values["base"][slices.members[name]]).pvalue
        for name in found
        for run in NAMES[1:]
    ]
    compared = [one for part in found.values() for one in part.comparisons]
    assert [one.p for one in compared] == pytest.approx(expected, rel=1e-9)
    assert [one.p_corrected for one in compared] == pytest.approx(multipletests(expected, method="holm")[1])


@pytest.mark.parametrize("world", WORLDS)
def test_a_slice_of_all_topics_is_the_whole(world: str) -> None:
    topics, plan = WORLDS[world], Plan(SignificanceTest.STUDENT, permutations=1000)
    _, found = _compared(topics, dict.fromkeys(topics.query_ids, "all of them"), plan, [(0, 1), (0, 2)])
    whole = compare_runs(_scores(topics), topics, [NDCG], [(0, 1), (0, 2)], plan)
    language = "all" if len(topics.languages) > 1 else "de"
    assert list(found["all of them"].comparisons) == [one for one in whole if one.language == language]


def test_without_a_comparison_there_are_averages() -> None:
    topics = WORLDS["parallel"]
    slices = Slices.of(_slices(topics), topics)
    found = compare_slices(slices, _scores(topics), topics, [NDCG], [], None)
    assert all(part.comparisons == () for part in found.values())
    assert found["low"].macro.keys() == set(NAMES)


def test_sources_of_any_kind_say_the_same(tmp_path: Path) -> None:
    topics = WORLDS["monolingual"]
    pairs = [(topic, name) for topic, names in _slices(topics).items() for name in names]
    one_name = {topic: "low" for topic, names in _slices(topics).items() if "low" in names}
    lines = {
        "slices.tsv": [f"{topic}\t{name}" for topic, name in pairs],
        "headed.csv": ["topic,slice", *(f'{topic}, "{name}"'.replace(' "', '"') for topic, name in pairs)],
    }
    sources: list[Any] = [_slices(topics), pandas.DataFrame(pairs, columns=["query_id", "slice"])]
    for name, content in lines.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
        sources.append(tmp_path / name)
    with gzip.open(tmp_path / "slices.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines["slices.tsv"]))
    sources.append(str(tmp_path / "slices.tsv.gz"))
    expected, *others = (Slices.of(source, topics) for source in sources)
    for other in others:
        assert list(other.members) == list(expected.members)
        assert other.unsliced == expected.unsliced
        for name, inside in expected.members.items():
            assert np.array_equal(other.members[name], inside)
    assert np.array_equal(Slices.of(one_name, topics).members["low"], expected.members["low"])


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (
            {"de:0001": "a", "de:0O01": "a", "fi:00001": ["b", "a"]},
            ["topic 'de:0O01' is not among the 24 of the collection", "near: de:0", "topic 'fi:00001'"],
        ),
        ({}, ["none has a judged topic"]),
        (7, ["found int, expected topic -> slice or slices"]),
        (
            pandas.DataFrame({"topic": ["x"], "part": ["y"]}),
            ["columns topic, part; expected topic and slice"],
        ),
        ("none.tsv", ["none.tsv: cannot be read"]),
    ],
)
def test_what_is_no_slice_is_said_at_once(source: Any, messages: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        Slices.of(source, WORLDS["monolingual"])
    assert all(message in str(raised.value) for message in messages)


def test_every_bad_line_of_a_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "slices.tsv"
    file.write_text("topic\tslice\nde:0001\tlow\nde:0002\nde:0003\t\nxx\tlow\nde:0001\tlow\n")
    with pytest.raises(DataError) as raised:
        Slices.of(file, WORLDS["monolingual"])
    lines = str(raised.value).splitlines()
    assert [line.removeprefix(str(file))[:3] for line in lines] == [":3:", ":4:", ":5:"]
    assert "with a tab or comma between" in lines[0]


def _evaluation(world: str, plan: Plan | None, baseline: str | None) -> Evaluation:
    topics = WORLDS[world]
    pairs = [(0, 1), (0, 2)] if baseline else [(0, 1), (0, 2), (1, 2)]
    slices = Slices.of(_slices(topics), topics)
    (judged,) = mimo_measures("judged@10")
    scores = _scores(topics)
    for score in scores:
        score.per_topic[judged] = np.full(len(topics.query_ids), 0.5)
    compared = compare_runs(scores, topics, [NDCG], pairs, plan) if plan else []
    parts = compare_slices(slices, scores, topics, [NDCG, judged], pairs if plan else [], plan)
    return Evaluation(
        topics,
        (NDCG,),
        judged,
        scores,
        tuple(compared),
        plan,
        baseline,
        slices=parts,
        unsliced=slices.unsliced,
    )


def mimo_measures(names: str) -> Any:
    from mimo_plugin.evaluation.measures import parse_measures

    return parse_measures(names)


def test_tables_have_a_row_a_slice_and_run() -> None:
    found = _evaluation("parallel", Plan(SignificanceTest.STUDENT, permutations=1000), "base")
    text = found.render()
    assert "ndcg@10, slices of topics" in text
    assert "judged@10, slices" not in text
    table = text[text.index("ndcg@10, slices of topics") :].splitlines()
    rows = [line.split() for line in table[4:10]]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (name, str(found.slices[name].topics), run) for name in ("even", "low") for run in NAMES
    ]
    assert all(row[3] == f"{found.slices[row[0]].macro[row[2]]['ndcg@10']:.4f}" for row in rows)
    assert "–" in rows[0][4]
    assert "language versions together" in table[10]
    assert "p corrected by Holm over 2 pairs of runs x 2 slices; level 0.05." in table[10]
    assert table[11] == "18 of 36 topics are in no slice."
    assert found.render(TableFormat.LATEX).count(r"\begin{table}") == 4
    assert "slices of topics" in found._repr_html_()


def test_all_pairs_have_rows_of_their_own() -> None:
    plan = Plan(SignificanceTest.TUKEY_HSD, permutations=1000)
    text = _evaluation("one language", plan, None).render()
    table = text[text.index("ndcg@10, slices of topics") :]
    assert table.count("mimo - e5") == 2
    assert "Tukey's HSD with topics as blocks; p holds for all pairs at once, corrected by" in table
    assert "over 2 slices" in table
    assert "difference" not in _slice_part(_evaluation("one language", None, None).render())


def _slice_part(text: str) -> str:
    return text[text.index("ndcg@10, slices of topics") :]


@pytest.mark.slow
def test_the_command_and_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"{lang}:{number}" for lang in ("de", "fi") for number in range(6)]
    docs = [{"_id": name, "text": f"text {name}", "lang": name[:2]} for name in ids]
    queries = [{"_id": name, "text": f"query {name}", "lang": name[:2]} for name in ids]
    folder = write_folder(tmp_path / "c", docs, queries, {name: {name: 1} for name in ids})
    runs = {
        "good": {name: {name: 2.0, ids[0]: 1.0} for name in ids},
        "bad": {name: {ids[at - 1]: 2.0, name: 1.0 + at} for at, name in enumerate(ids)},
    }
    for name, run in runs.items():
        mimo.Run.of(run, name).save(tmp_path / f"{name}.trec")
    slices = tmp_path / "slices.csv"
    slices.write_text("".join(f"{name},{'odd' if int(name[3]) % 2 else 'even'}\n" for name in ids[1:]))
    command = ["evaluate", *(str(tmp_path / f"{name}.trec") for name in runs), "--qrels", folder]
    command += ["--measures", "ndcg@5,recall@1", "--baseline", "bad", "--no-progress"]
    out = tmp_path / "scores.json"
    assert main([*command, "--json", str(out)]) == 0
    plain = json.loads(out.read_text())
    assert not {"slices", "unsliced"} & plain.keys()
    assert main([*command, "--json", str(out), "--slices", str(slices)]) == 0
    printed = capsys.readouterr().out
    assert "recall@1, slices of topics" in printed
    assert "1 of 12 topics are in no slice." in printed
    found = json.loads(out.read_text())
    assert found.pop("unsliced") == 1
    parts = found.pop("slices")
    assert found == plain
    assert list(parts) == ["odd", "even"]
    assert (parts["odd"]["topics"], parts["even"]["topics"]) == (6, 5)
    assert [one["measure"] for one in parts["odd"]["comparisons"]] == ["ndcg@5", "recall@1"]
    # The library takes the same, and the record reads what was written.
    entries = dict(line.split(",") for line in slices.read_text().split())
    result = mimo.evaluate(
        {name: str(tmp_path / f"{name}.trec") for name in runs},
        folder,
        measures=["ndcg@5,recall@1"],
        baseline="bad",
        slices=entries,
        progress=False,
    ).result
    assert EvaluationResult.model_validate_json(out.read_text()) == result
    slices.write_text("de:1,odd\nde:99,odd\nfi:77,even\n")
    assert main([*command, "--slices", str(slices)]) == 1
    errors = capsys.readouterr().err
    assert "slices.csv:2: topic 'de:99' is not among the 12" in errors
    assert "slices.csv:3: topic 'fi:77'" in errors
