"""Parsed tables: written and read, and every bad line said at once."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError
from mimo_plugin.data.debian.archive import DescriptionTexts as Texts
from mimo_plugin.data.debian.archive import Row, read_tables, write_table
from mimo_plugin.data.options import language_code

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)
TEXTS = st.builds(Texts, TEXT, TEXT)
ROWS = st.lists(
    st.builds(
        Row,
        st.from_regex(r"[0-9a-f]{12}", fullmatch=True),
        st.from_regex(r"[a-z0-9+.-]{2,9}", fullmatch=True),
        st.dictionaries(st.sampled_from(["en", "de", "pt", "ja"]), TEXTS, min_size=2),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row.id,
)
GOOD = {
    "id": "0a",
    "package": "foo",
    "text": {"en": {"short": "a", "long": "b"}, "de": {"short": "c", "long": "d"}},
}


def write_lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


@given(ROWS)
def test_a_table_comes_back_and_is_the_same_bytes(tmp_path: Path, rows: list[Row]) -> None:
    one, other = tmp_path / "one.jsonl.gz", tmp_path / "other.jsonl.gz"
    write_table(one, rows)
    (found,), dropped = read_tables([one])
    assert found == rows
    assert not any(dropped.values())
    write_table(other, found)
    assert other.read_bytes() == one.read_bytes()


def test_countries_are_left_out_of_languages(tmp_path: Path) -> None:
    record = {**GOOD, "text": {"en": {"short": "a", "long": "b"}, "pt_BR": {"short": "c", "long": "d"}}}
    (rows,), _ = read_tables([write_lines(tmp_path / "table.jsonl", record)])
    assert list(rows[0].text) == ["en", "pt"]
    assert [language_code(code) for code in ("de", "zh_CN", "ca@valencia")] == ["de", "zh", "ca"]


def test_a_row_without_a_package_is_one_of_its_own(tmp_path: Path) -> None:
    records = [{"id": name, "text": GOOD["text"]} for name in ("calc_formula", "calc_chart")]
    (rows,), _ = read_tables([write_lines(tmp_path / "table.jsonl", *records)])
    assert [(row.id, row.package) for row in rows] == [(one["id"], one["id"]) for one in records]


def test_empty_texts_and_lone_languages_are_counted(tmp_path: Path) -> None:
    text = {**GOOD["text"], "fr": {"short": " ", "long": "x"}}
    alone = {"en": {"short": "a", "long": "b"}, "de": {"short": "", "long": "d"}}
    path = write_lines(tmp_path / "table.jsonl", {**GOOD, "text": text}, {**GOOD, "id": "0b", "text": alone})
    (rows,), dropped = read_tables([path])
    assert [list(row.text) for row in rows] == [["en", "de"]]
    assert dropped == {"empty text": Counter(fr=1, de=1), "no translation": Counter(en=1)}


def test_only_the_languages_asked_for_are_read(tmp_path: Path) -> None:
    text = {**GOOD["text"], "fr": {"short": "e", "long": "f"}}
    path = write_lines(tmp_path / "table.jsonl", {**GOOD, "text": text})
    (rows,), dropped = read_tables([path], ("en", "fr"))
    assert list(rows[0].text) == ["en", "fr"]
    assert not any(dropped.values())


def test_every_bad_line_of_every_table_is_said(tmp_path: Path) -> None:
    english = GOOD["text"]["en"]
    one = write_lines(
        tmp_path / "one.jsonl",
        GOOD,
        GOOD,
        {**GOOD, "id": "a b"},
        {"package": "foo", "text": GOOD["text"]},
        {**GOOD, "id": "0d", "text": []},
        {**GOOD, "id": "0e", "text": {"German": english}},
        {**GOOD, "id": "0f", "text": {"en": "x"}},
        {**GOOD, "id": "10", "text": {"en": {"short": 1, "long": "x"}}},
        {**GOOD, "id": "11", "text": {"en": {"short": "x"}}},
        {**GOOD, "id": "12", "text": {"pt": english, "pt_BR": english}},
    )
    other = tmp_path / "other.jsonl"
    other.write_text("{\n", encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_tables([one, other])
    lines = str(raised.value).splitlines()
    expected = [
        (one, 2, "id '0a' is also in line 1"),
        (one, 3, "has white space in it"),
        (one, 4, "key 'id' is missing"),
        (one, 5, "'text' is no object"),
        (one, 6, "language 'German', expected a code"),
        (one, 7, "'en' is no object"),
        (one, 8, "is of type int"),
        (one, 9, "key 'long' is missing"),
        (one, 10, "'pt' occurs twice"),
        (other, 1, "not valid JSON"),
    ]
    assert len(lines) == len(expected)
    for line, (path, number, what) in zip(lines, expected, strict=True):
        assert line.startswith(f"{path}:{number}: ")
        assert what in line


def test_a_table_of_another_kind_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "table.jsonl", *([{"_id": "d1", "text": "t"}] * 1000))
    with pytest.raises(DataError) as raised:
        read_tables([path])
    assert len(str(raised.value).splitlines()) == 21


def test_a_damaged_file_and_an_empty_one_are_said(tmp_path: Path) -> None:
    damaged, empty = tmp_path / "damaged.jsonl.gz", tmp_path / "empty.jsonl"
    damaged.write_bytes(gzip.compress(json.dumps(GOOD).encode())[:-9])
    empty.touch()
    with pytest.raises(DataError, match=r"damaged gzip file[^\n]*\n[^\n]*no description has two languages"):
        read_tables([damaged, empty])
