"""Damaged files: what a bad disk, an editor, another tool or an adversary makes of a valid one."""

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

# What readers stumble over: ends, marks, numbers beyond every type, what has a meaning in YAML, JSON or TREC.
_TOKENS = [
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\t", b" ", b"\x0b", b"\x1c", b"\x1f\x8b", b"\x1f\x8b\x08\x00"),
    *(b'"', b"'", b"\\", b"\\ud800", b"\\u0000", b"{", b"}", b"[", b"]", b":", b",", b"#", b"- ", b"? "),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"1_0", b"0x10", b"9" * 25, b"9" * 5000),
    *(
        b"[" * 3000,
        b'{"a":' * 3000,
        b"a: &a [*a]\n",
        b"*a",
        b"&a ",
        b"<<: ",
        b"!!python/name:os.system ",
        b"!!float x",
    ),
    *(
        b"2024-13-45",
        b"--- \n",
        b"...\n",
        b"%YAML 9.9\n",
        b"!!set {a}",
        b"!!binary x",
        b"~",
        b"Q0",
        b"\tQ0\t",
    ),
]
# A list of nine lists of nine lists ...: a few hundred bytes that stand for a billion values.
_BOMB = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%b]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10)
)
_SIZES = st.integers(0, 64)

Change = Callable[[bytes], bytes]


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


# Values of every kind that JSON or YAML can hold, and some that only look like the right one.
VALUES = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            0,
            -1,
            1,
            2**31,
            2**63,
            10**400,
            -(10**400),
            1e308,
            1e-320,
            float("nan"),
            float("inf"),
        ]
    ),
    st.sampled_from(
        ["", " ", "\x00", "a\x00", "\ud800", "a b", "\n", "é", "1", "x" * 5000, "../x", "/", "*", "{", "%s"]
    ),
    st.sampled_from([[], {}, [[]], {"": {}}, [None], {"a": None}, [0] * 50]),
    st.builds(_deep, st.sampled_from([5, 500])),
    st.text(max_size=5),
    st.integers(),
    st.floats(),
)


@st.composite
def _places(draw: st.DrawFn, content: bytes) -> tuple[int, int]:
    start = draw(st.integers(0, len(content)))
    return start, min(len(content), start + draw(_SIZES))


@st.composite
def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    start, end = draw(_places(content))
    kind = draw(st.sampled_from(["flip", "cut", "end", "twice", "token", "bytes", "move"]))
    if kind == "flip" and start < len(content):
        changed = content[start] ^ draw(st.integers(1, 255))
        return content[:start] + bytes([changed]) + content[start + 1 :]
    if kind == "cut":
        return content[:start] + content[end:]
    if kind == "end":
        return content[:start]
    if kind == "twice":
        return content[:end] + content[start:end] * draw(st.sampled_from([1, 1, 3, 400])) + content[end:]
    if kind == "bytes":
        return content[:start] + draw(st.binary(max_size=12)) + content[end:]
    if kind == "move":
        part, rest = content[start:end], content[:start] + content[end:]
        place = draw(st.integers(0, len(rest)))
        return rest[:place] + part + rest[place:]
    return content[:start] + draw(st.sampled_from(_TOKENS)) + content[draw(st.sampled_from([start, end])) :]


@st.composite
def _bytes_changed(draw: st.DrawFn, content: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 4))):
        content = draw(_changed(content))
    return content


@st.composite
def _recoded(draw: st.DrawFn, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(
        draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp037"])), "replace"
    )


@st.composite
def _value_changed(draw: st.DrawFn, value: Any) -> Any:
    """The same tree with one part of it replaced, dropped, renamed or added to."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(VALUES)
    value = copy.copy(value)
    place = draw(st.sampled_from(sorted(value, key=str) if isinstance(value, dict) else range(len(value))))
    kind = draw(st.sampled_from(["inside", "inside", "inside", "replace", "drop", "add"]))
    if kind == "inside":
        value[place] = draw(_value_changed(value[place]))
    elif kind == "replace":
        value[place] = draw(VALUES)
    elif kind == "drop":
        del value[place]
    elif isinstance(value, dict):
        value[draw(st.sampled_from(["", "x", "\ud800", "_id", "\x00"]))] = draw(VALUES)
    else:
        value.append(draw(VALUES))
    return value


@st.composite
def _json_changed(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, one object or one a line, with one value changed."""
    try:
        lines = [json.loads(content)]
    except ValueError:
        lines = [json.loads(line) for line in content.splitlines()]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = draw(_value_changed(lines[number]))
    return "".join(f"{_json(line)}\n" for line in lines).encode("utf-8", "replace")


def _json(value: Any) -> str:
    # Lone surrogates as escapes, as JSON may hold them.
    try:
        return json.dumps(value)
    except ValueError:
        return "9" * 5000


@st.composite
def _yaml_changed(draw: st.DrawFn, content: bytes) -> bytes:
    value = draw(_value_changed(yaml.safe_load(content)))
    try:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return b"a: " + b"[" * 3000


@st.composite
def _columns_changed(draw: st.DrawFn, content: bytes) -> bytes:
    """Lines of columns with one of them replaced."""
    lines = content.split(b"\n")
    number = draw(st.integers(0, len(lines) - 1))
    separator = b"\t" if b"\t" in lines[number] else b" "
    columns = lines[number].split(separator)
    column = draw(st.integers(0, len(columns) - 1))
    columns[column] = draw(
        st.one_of(
            st.sampled_from(_TOKENS), st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace"))
        )
    )
    lines[number] = separator.join(columns)
    return b"\n".join(lines)


def damaged(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """What may become of a file; by its name, values inside of it change, too."""
    kinds = [_bytes_changed(content), _bytes_changed(content), _recoded(content), st.binary(max_size=200)]
    if name.endswith((".json", ".jsonl")):
        kinds += [_json_changed(content)] * 4
    elif name.endswith(".yaml"):
        kinds += [_yaml_changed(content)] * 4
    elif name.endswith((".trec", ".tsv", ".docid", ".lang")):
        kinds += [_columns_changed(content)] * 3
    return st.one_of(kinds)
