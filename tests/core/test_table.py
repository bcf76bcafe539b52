"""One table in every format: nothing is lost, and nothing is taken for markup."""

import csv
import io

from mimo_plugin.core.table import (
    Cell,
    Column,
    Note,
    Rows,
    Table,
    count,
    in_bold,
    number,
    probability,
    render,
    to_csv,
    to_html,
    to_latex,
    words,
)

GROUPED = Table(
    "Scores of a_b & c",
    [Column("run"), Column("macro", "nDCG@10"), Column("mean", "nDCG@10"), Column("p")],
    [
        Rows([[words("a_b"), number(0.5), number(-0.25, "+.2f"), probability(0.00004, bound=True)]]),
        Rows([[words("x|y"), number(None), number(1)._replace(marked=True), Cell("")]], "From publications"),
    ],
    [Note("100 % of [it], see", "https://example.org/a_b")],
    "scores",
    ["From a subset."],
)


def test_csv_holds_every_digit_and_says_what_a_mark_means() -> None:
    header, first, second = csv.reader(io.StringIO(to_csv(GROUPED)))
    assert header == ["part", "run", "nDCG@10 macro", "nDCG@10 mean", "nDCG@10 mean is", "p", "p is", "label"]
    assert first == ["", "a_b", "0.5", "-0.25", "", "4e-05", "upper bound", "From a subset."]
    assert second == ["From publications", "x|y", "", "1", "significant", "", "", "From a subset."]


def test_latex_has_groups_headings_and_signs_of_mathematics() -> None:
    latex = to_latex([GROUPED])
    assert r"\caption{Scores of a\_b \& c. From a subset.}" in latex
    assert r" & \multicolumn{2}{c}{nDCG@10} & " in latex
    assert r"\cmidrule(lr){2-3}" in latex
    assert r"a\_b & 0.5000 & $-$0.25 & \ensuremath{<}4.0e-05 \\" in latex
    assert r"\multicolumn{4}{l}{\textit{From publications}} \\" in latex
    assert r"x\ensuremath{|}y & -- & 1.0000$^{\dagger}$ &  \\" in latex
    assert r"100 \% of {[}it{]}, see https://example.org/a\_b" in latex
    assert latex.count(r"\midrule") == 2


def test_a_terminal_keeps_digits_in_line_and_markdown_escapes() -> None:
    table = Table.of("t", ["run", "x"], [["a_b", "0.5000†"], ["x|y", "0.2500"]])
    lines = render([table], "text").splitlines()
    assert lines[-2].index("0.5000") == lines[-1].index("0.2500")
    markdown = render([table, GROUPED], "markdown")
    assert r"| x\|y" in markdown
    assert r"**t**" in markdown
    assert r"| a\_b | 0.5000 | -0.25 | \<4.0e-05 |" in " ".join(markdown.split())


def test_html_shows_names_as_they_are() -> None:
    html = to_html(Table.of("<b>", ["run", "x"], [["<script>", "1"]], ["a < b"]))
    assert "<script>" not in html
    assert "<caption>&lt;b&gt;</caption>" in html
    assert "a &lt; b" in html


def test_the_best_are_those_that_look_the_same() -> None:
    cells = in_bold([number(0.41231), number(0.41234), number(0.3), number(None)])
    assert [cell.best for cell in cells] == [True, True, False, False]
    assert not in_bold([number(0.5), number(None)])[0].best


def test_a_column_of_numbers_is_set_to_the_right() -> None:
    steps = Table.of("t", ["step", "x"], [[count(5), number(1)], [count(1000), number(2)]])
    assert r"\begin{tabular}{rr}" in to_latex([steps])
    assert r"\begin{tabular}{lrrr}" in to_latex([GROUPED])
