"""Tables: layout for few and many languages, marks, and characters that a format would take for its own."""

import click
import numpy as np
import pytest
from helpers.evaluation_samples import NDCG, as_scores, monolingual, parallel

from mimo_plugin.core.table import Cell, Table, render
from mimo_plugin.evaluation.compare import compare_runs
from mimo_plugin.evaluation.evaluate import Evaluation
from mimo_plugin.evaluation.measures import parse_measures
from mimo_plugin.evaluation.options import Correction, SignificanceTest, TableFormat
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.evaluation.tables import make_summary, make_tables
from mimo_plugin.evaluation.topics import Topics

(JUDGED,) = parse_measures("judged@10")


def _evaluation(
    topics: Topics, plan: Plan | None = None, baseline: str | None = "a_b", runs: int = 2
) -> Evaluation:
    count = len(topics.query_ids)
    rng = np.random.default_rng(1)
    base = rng.random(count) / 2
    names = ("a_b", "mimo", "x|y")[:runs]
    scores = as_scores(
        topics, **{name: base + 0.2 * at + 0.01 * rng.random(count) for at, name in enumerate(names)}
    )
    for score in scores:
        score.per_topic[JUDGED] = np.full(count, 0.25)  # type: ignore[index]
    comparisons = []
    if plan:
        pairs = [(0, other) for other in range(1, runs)] if baseline else [(0, 1), (0, 2), (1, 2)]
        comparisons = compare_runs(scores, topics, [NDCG], pairs, plan)
    return Evaluation(topics, (NDCG,), JUDGED, tuple(scores), tuple(comparisons), plan, baseline, ())


STUDENT = Plan(SignificanceTest.STUDENT, permutations=1000)


def test_few_languages_are_columns_and_many_are_rows() -> None:
    few = make_tables(_evaluation(monolingual({"de": 3, "fi": 2})))[1]
    assert few.headers == ["run", "de", "fi", "macro", "mean"]
    assert few.rows[0] == ["(topics)", "3", "2", "", "5"]
    assert [row[0] for row in few.rows] == ["(topics)", "a_b", "mimo"]
    sizes = {f"l{number:02}": 2 for number in range(18)}
    many = make_tables(_evaluation(monolingual(sizes)))[1]
    assert many.headers == ["language", "topics", "a_b", "mimo"]
    assert [row[0] for row in many.rows] == [*sizes, "macro", "mean"]
    assert [row[1] for row in many.rows] == ["2"] * 18 + ["", "36"]


def test_one_language_has_a_column_a_measure() -> None:
    counts, scores, compared = make_tables(_evaluation(monolingual({"de": 8}), STUDENT))
    assert counts.headers == ["run", "judged", "retrieved", "missing", "judged@10"]
    assert counts.rows[0] == ["a_b", "8", "8", "0", "0.2500"]
    assert scores.title == "scores, 8 topics (language: de)"
    assert scores.headers == ["run", "ndcg@10"]
    # The macro average of one language is that language.
    assert [row[0] for row in compared.rows] == ["de"]


def test_marks_and_what_they_mean() -> None:
    tables = make_tables(_evaluation(monolingual({"de": 9, "fi": 9}), STUDENT))
    _, scores, compared = tables
    assert not any("†" in cell for cell in scores.rows[1])
    assert [cell.endswith("†") for cell in scores.rows[2]] == [False, True, True, True, False]
    assert [note.text for note in scores.notes] == [
        "† differs from a_b: paired t test; p corrected by Holm over 2 languages; level 0.05.",
        compared.notes[1].text,
    ]
    assert compared.title == "ndcg@10, difference mimo - a_b"
    assert [row[0] for row in compared.rows] == ["de", "fi", "macro"]
    assert compared.notes[1].text.startswith(
        "macro: run labels randomised within topics, interval by bootstrap"
    )


@pytest.mark.parametrize(
    ("plan", "baseline", "notes"),
    [
        (
            Plan(SignificanceTest.PERMUTATION, permutations=1000),
            "a_b",
            (
                "paired randomisation test; p corrected by Holm over 2 pairs of runs x 2 languages",
                "over 2 pairs of runs.",
            ),
        ),
        (
            Plan(SignificanceTest.TUKEY_HSD, permutations=1000),
            None,
            (
                "p holds for all pairs at once, corrected by Bonferroni over 2 languages",
                "p holds for all pairs at once.",
            ),
        ),
        (
            Plan(SignificanceTest.STUDENT, Correction.NONE, alpha=0.01, permutations=1000),
            "a_b",
            ("paired t test; p not corrected; level 0.01.", "p not corrected."),
        ),
    ],
)
def test_notes_name_test_and_correction(plan: Plan, baseline: str | None, notes: tuple[str, str]) -> None:
    table = make_tables(_evaluation(monolingual({"de": 9, "fi": 9}), plan, baseline, runs=3))[-1]
    assert all(part in note.text for part, note in zip(notes, table.notes, strict=True))
    assert f"{100 * (1 - plan.alpha):g}% interval" in table.headers


def test_parallel_topics_are_said_to_be_one() -> None:
    table = make_tables(_evaluation(parallel(["de", "fi", "ja"], 9), STUDENT))[-1]
    assert "randomised within topics, their language versions together (9 units)" in table.notes[1].text


def test_every_format_keeps_what_it_would_take_for_its_own() -> None:
    tables = make_tables(_evaluation(monolingual({"de": 9, "fi": 9}), STUDENT, runs=3))
    text, markdown, latex = (render(tables, form) for form in TableFormat)
    assert "a_b" in text
    assert "x|y" in text
    assert r"x\|y" in markdown
    assert r"a\_b" in latex
    assert r"95\% interval" in latex
    assert "†" not in latex
    assert "$^{\\dagger}$" in latex
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == len(tables)


def test_a_summary_is_the_macro_average_or_the_only_language() -> None:
    several = _evaluation(monolingual({"de": 9, "fi": 9}), STUDENT)
    table = make_summary(several)
    assert table.title == "scores, 18 topics (macro average of 2 languages)"
    for name, *cells in (row for part in table.parts for row in part.rows):
        macro = several.result.runs[name.text].macro
        assert [cell.exact for cell in cells] == [macro[measure] for measure in table.headers[1:]]
    assert [note.text[:50] for note in table.notes] == [
        "† differs from a_b: macro: run labels randomised wi"[:50]
    ]
    one = _evaluation(monolingual({"de": 9}), STUDENT)
    assert make_summary(one).rows == make_tables(one)[1].rows
    assert one.summary() == render([make_summary(one)], TableFormat.TEXT)


def test_the_best_is_bold_on_a_terminal_alone() -> None:
    evaluation = _evaluation(monolingual({"de": 9, "fi": 9}), STUDENT)
    plain, bold = evaluation.render(), evaluation.render(bold=True)
    assert "\x1b" not in plain
    assert click.unstyle(bold) == plain
    scores = make_tables(evaluation)[1]
    for row in scores.parts[0].rows[1:]:
        for cell in row:
            assert (f"\x1b[1m{cell.plain}" in bold) == (cell.best or cell.marked)
    assert sum(cell.best for row in scores.parts[0].rows for cell in row) >= 3


def test_digits_stay_in_line_beside_a_dagger() -> None:
    table = Table.of("t", ["run", "x"], [["a", Cell("0.5000", 0.5, marked=True)], ["b", "0.2500"]])
    lines = render([table], TableFormat.TEXT).splitlines()
    assert lines[-2].index("0.5000") == lines[-1].index("0.2500")
