"""YAML with lines: what is no mapping, what is no record, and what is written back."""

from pathlib import Path

import pytest
from pydantic import Field

from mimo_plugin.core.artifact import Record
from mimo_plugin.core.config import read_yaml, validate, yaml_text
from mimo_plugin.core.errors import UsageError


class Inner(Record):
    size: int
    weight: float | None = Field(None, alias="lambda")


class Outer(Record):
    name: str
    kind: str = "a"
    inner: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: found nothing, expected a mapping"),
        ("- 1\n- 2\n", "1: found a list of 2, expected a mapping"),
        ("title: x\nsetting: [\n", "3: not valid YAML"),
        ("a: &x 1\nb: *x\n", "2: *x is an alias, expected the value itself"),
        ("title: !!python/object:os.system x\n", "1: not valid YAML (could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "2: not valid YAML (expected a single document"),
        ("[" * 2000, "1: nested in 21 lists and mappings, expected a few"),
        ("title: !!int x\n", "1: cannot be read as YAML (invalid literal"),
        ("title: a\nb: \x07\n", "2: not valid YAML (special characters are not allowed)"),
        ("a: 1\nb: 2\na: 3\n", '3: not valid YAML (while constructing a mapping; found duplicate key "a"'),
        ("a: 2020-99-99\n", "1: cannot be read as YAML (month must be in 1..12)"),
    ],
)
def test_what_is_no_mapping(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:{said}")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    with pytest.raises(UsageError, match="cannot be read .No such file or directory., expected YAML"):
        read_yaml(path)
    path.write_bytes(b"title: x\nnote: \xff\n")
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path}:2: not valid UTF-8 (byte 0xff), expected UTF-8"


def test_every_field_that_is_wrong_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "kind: 7\ninner:\n  - size: 3\n    lamda: 1\n  - {size: many}\n"
        "by_name:\n  x:\n    size: [1]\n    lambda: true\nknd: a\n"
    )
    file = read_yaml(path)
    with pytest.raises(UsageError) as caught:
        validate(Outer, file.values, file.where)
    assert [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()] == [
        "1: name: is missing, expected a value",
        "1: kind: found 7, expected a valid string",
        "4: inner[0].lamda: unknown key, expected one of size, lambda; near: lambda",
        "5: inner[1].size: found 'many', expected a valid integer, unable to parse string as an integer",
        "8: by_name.x.size: found a list of 1, expected a valid integer",
        "10: knd: unknown key, expected one of name, kind, inner, by_name; near: kind",
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    values = {"b": "1e3", "a": "no", "numbers": [1e-05, 12, None], "of": {"ü": "é\n x", "t": True}, "n": {}}
    (tmp_path / "own.yaml").write_text(yaml_text(values), encoding="utf-8")
    found = read_yaml(tmp_path / "own.yaml").values
    assert found == values
    assert list(found) == list(values)
