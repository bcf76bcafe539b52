"""From the archive's texts to a table: what stays, what is dropped and why."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.data.debian.archive import DescriptionTexts as Texts
from mimo_plugin.data.debian.archive import Row, clean, tidy
from mimo_plugin.data.options import CleaningOptions

ENGLISH = Texts("fast archiver", "This program packs files into archives and unpacks them again.")
GERMAN = Texts("schneller Packer", "Dieses Programm packt Dateien in Archive und packt sie wieder aus.")
OPTIONS = CleaningOptions()


def row(number: int = 1, english: Texts = ENGLISH, **others: Texts) -> Row:
    return Row(f"{number:012x}", f"package{number}", {"en": english, **others})


def reasons(rows: list[Row], options: CleaningOptions = OPTIONS) -> dict[str, dict[str, int]]:
    return {reason: dict(counts) for reason, counts in clean(rows, options)[1].items() if counts}


def test_a_translated_description_stays_as_it_is() -> None:
    assert clean([row(de=GERMAN)], OPTIONS)[0] == [row(de=GERMAN)]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (ENGLISH, "untranslated"),
        (GERMAN._replace(short="Fast Archiver"), "untranslated"),
        (
            GERMAN._replace(long="This  PROGRAM packs files into archives and unpacks sie again"),
            "untranslated",
        ),
        (GERMAN._replace(long="Packt Dateien."), "too short"),
        (GERMAN._replace(long=" \u200b\n"), "empty text"),
        (GERMAN._replace(short=""), "empty text"),
    ],
)
def test_what_is_no_translation_is_dropped_and_counted(version: Texts, reason: str) -> None:
    french = Texts("archiveur rapide", "Ce logiciel compresse des fichiers et les décompresse.")
    kept, _ = clean([row(de=version, fr=french)], OPTIONS)
    assert kept == [row(fr=french)]
    assert reasons([row(de=version, fr=french)]) == {reason: {"de": 1}}


def test_a_description_without_a_translation_is_dropped() -> None:
    assert reasons([row(de=ENGLISH), row(2)]) == {"untranslated": {"de": 1}, "no translation": {"en": 2}}
    short = row(3, english=ENGLISH._replace(long="Packs."), de=GERMAN)
    assert reasons([short]) == {"too short": {"en": 1}, "no translation": {"de": 1}}


def test_of_one_english_long_text_the_description_with_most_languages_stays() -> None:
    long = ENGLISH.long.upper()
    rows = [
        row(1, de=GERMAN),
        row(2, Texts("another", long), de=GERMAN, fr=GERMAN._replace(long=f"Oui, {GERMAN.long}")),
        row(3, Texts("third", long), de=GERMAN),
    ]
    kept, dropped = clean(rows, OPTIONS)
    assert [one.id for one in kept] == [rows[1].id]
    assert dropped["the same English long text"] == Counter(en=2, de=2)


def test_a_long_text_is_cut_between_words() -> None:
    options = replace(OPTIONS, max_characters=30)
    (kept,), _ = clean([row(de=GERMAN)], options)
    assert kept.text["en"].long == "This program packs files into"
    assert kept.text["de"].long == "Dieses Programm packt Dateien"
    (japanese,), _ = clean([row(ja=Texts("書庫", "書" * 50))], options)
    assert japanese.text["ja"].long == "書" * 30


@given(st.text(max_size=60))
def test_tidy_texts_have_single_spaces_and_nothing_invisible(text: str) -> None:
    tidied = tidy(text)
    assert tidied == " ".join(tidied.split())
    assert tidy(tidied) == tidied
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in tidied)
    assert "".join(tidied.split()) in "".join(text.split()) or len(tidied) < len(text)


def test_tidy_keeps_words_apart_and_together() -> None:
    assert tidy(" a\u00a0\u3000b\x0b\x07c\u200bd\u00ade\x85f ") == "a b cde f"
