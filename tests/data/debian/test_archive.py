"""Translation indexes: what is written is read, whatever the texts."""

from helpers.tiny_archive import Package, stanza
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.data.debian.archive import Entry, entries

# Whatever a line can hold that is not its end; a full stop alone is an empty line.
LINE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40).filter(
    lambda line: line.strip() == line and line != "."
)
BODY = st.lists(st.just("") | LINE, max_size=6)
NAME = st.from_regex(r"[a-z0-9][a-z0-9.+-]{1,12}", fullmatch=True)
CODE = st.sampled_from(["en", "de", "pt_BR"])


def read(text: str, code: str) -> list[Entry]:
    return list(entries(text.splitlines(keepends=True), code))


@given(st.lists(st.tuples(NAME, LINE, BODY), max_size=4), CODE)
def test_descriptions_come_back(found: list[tuple[str, str, list[str]]], code: str) -> None:
    packages = [Package(name, {"en": (short, body), code: (short, body)}) for name, short, body in found]
    text = "".join(stanza(package, code) for package in packages)
    assert [tuple(entry) for entry in read(text, code)] == [
        (package.name, package.md5, short, " ".join(line for line in body if line))
        for package, (_, short, body) in zip(packages, found, strict=True)
    ]


def test_paragraphs_bullets_and_indented_lines_become_one_text() -> None:
    text = (
        "Package: foo\nDescription-md5: 0123\nDescription-de: ein Foo\n"
        " Es fooht:\n  * schnell,\n  * leise.\n .\n\tUnd mehr.\n"
    )
    assert read(text, "de") == [Entry("foo", "0123", "ein Foo", "Es fooht: * schnell, * leise. Und mehr.")]


def test_stanzas_of_other_fields_are_passed_over() -> None:
    text = (
        "Package: foo\nDescription-md5: 0\n\n\n"
        "Package: bar\nDescription-fr: un bar\n Il.\n\n"
        "Package: baz\nX-Other: a\n b\ndescription-MD5: 1\nDescription-de: ein Baz\n Ja.\n\n"
    )
    assert read(text, "de") == [Entry("baz", "1", "ein Baz", "Ja.")]


def test_a_line_without_a_field_before_it_is_passed_over() -> None:
    assert read(" lost\nPackage: a\nDescription-md5: 1\nDescription-de: b\n c\n", "de") == [
        Entry("a", "1", "b", "c")
    ]
