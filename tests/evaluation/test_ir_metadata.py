"""Runs with an ir_metadata header: valid YAML with the schema's keys, and the same run as without."""

import gzip
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.evaluate import evaluate
from mimo_plugin.evaluation.ir_metadata import run_header
from mimo_plugin.evaluation.runs import Run, read_run, write_run

# The components of schema 0.1 and their parts, from the checklists on ir-metadata.org.
SCHEMA: dict[str, set[str]] = {
    "platform": {"hardware", "operating system", "software"},
    "research goal": {"venue", "publication", "evaluation"},
    "implementation": {"executable", "source"},
    "method": {"automatic", "score ties", "indexing", "retrieval"},
    "actor": {"name", "orcid", "team", "fields", "mail", "role", "degree", "github", "twitter"},
    "data": {"test collection", "training data", "other"},
}
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=12)
METADATA = st.dictionaries(
    WORDS,
    st.recursive(
        WORDS | st.integers() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def read_header(path: Path) -> dict[str, Any]:
    """As the convention has it, with another YAML library than the one that wrote it."""
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    assert lines[0] == "# ir_metadata.start"
    header = lines[1 : lines.index("# ir_metadata.end")]
    assert all(line.startswith("# ") for line in header)
    found = yaml.safe_load("\n".join(line[2:] for line in header))
    assert isinstance(found, dict)
    return found


@settings(max_examples=25)
@given(metadata=METADATA, end=st.sampled_from(["trec", "trec.gz"]))
def test_header_and_run_come_back(metadata: dict[str, Any], end: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{end}"
    header = run_header("a", [{"name": "dense"}], metadata, ["miracl/sw/dev"])
    assert write_run(path, [("#", ["d"], [1.5]), ("q", ["e"], [0.1])], "a", header) == 2
    assert dict(read_run(path, "a")) == {"#": {"d": 1.5}, "q": {"e": np.float32(0.1)}}
    found = read_header(path)
    for name, value in metadata.items():
        if not isinstance(value, dict):
            assert found[name] == value
        else:
            assert value.items() <= found[name].items()


def test_the_schema(tmp_path: Path) -> None:
    goal = {"publication": {"arxiv": "https://arxiv.org/abs/2605.31171"}}
    given = {"actor": {"team": "ours", "role": "reproducer"}, "research goal": goal}
    (tmp_path / "a.trec").write_text(run_header("mine", [{"name": "bm25", "k1": 0.9}], given, ["a", "b"]))
    found = read_header(tmp_path / "a.trec")
    assert found.keys() == {"schema-version", "run-version", "tag", *SCHEMA}
    for component, parts in SCHEMA.items():
        assert found[component].keys() <= parts
    assert (found["schema-version"], found["tag"]) == (0.1, "mine")
    assert found["actor"] == given["actor"]
    assert found["research goal"] == goal
    assert found["data"] == {"test collection": {"name": "a, b"}}
    assert found["method"]["retrieval"] == [{"name": "bm25", "k1": 0.9}]
    assert found["platform"]["hardware"]["cpu"]["number of cores"] >= 1
    toolkits = {line.partition("==")[0] for line in found["platform"]["software"]["retrieval toolkit"]}
    assert toolkits == {"mimo-plugin", "pyserini"}
    assert shlex.split(found["implementation"]["executable"]["cmd"])[1:] == sys.argv[1:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# ir_metadata.start\n# tag: a\n", "a.trec: the ir_metadata header has no end"),
        ("# ir_metadata.start\nq Q0 d 1 1 t\n", "a.trec:2: the ir_metadata header goes on without '#'"),
        ("# ir_metadata.start\n# ir_metadata.end\n", "a.trec: is empty"),
        # The numbers of lines count the header.
        ("# ir_metadata.start\n# a: 1\n# ir_metadata.end\nq Q0 d 1 x t\n", "a.trec:4: score 'x'"),
        # Only a header is skipped: "#" may begin a query id.
        ("# a comment\nq Q0 d 1 1 t\n", "a.trec:1: 3 columns"),
    ],
)
def test_broken_headers(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.trec").write_text(content)
    with pytest.raises(DataError) as caught:
        read_run(tmp_path / "a.trec", "a")
    assert message in str(caught.value)


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    content = "# ir_metadata.start\n# a: 1\n# ir_metadata.end\n# Q0 d 1 1 t\n"
    (tmp_path / "a.trec").write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert dict(read_run(tmp_path / "a.trec", "a")) == {"#": {"d": np.float32(1)}}


def test_fused_runs_have_it_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Run.of({"q": {"a": 2.0, "b": 1.0}}).save("a.trec")
    Run.of({"q": {"b": 2.0, "c": 1.0}}).save("b.trec")
    Path("me.yaml").write_text("actor: {team: ours}\n")
    assert main(["fuse", "a.trec", "b.trec", "--output", "plain.trec"]) == 0
    assert main(["fuse", "a.trec", "b.trec", "--ir-metadata", "me.yaml", "--output", "told.trec"]) == 0
    told = Path("told.trec").read_text()
    assert told.partition("# ir_metadata.end\n")[2] == Path("plain.trec").read_text()
    found = read_header(Path("told.trec"))
    assert found["actor"] == {"role": "experimenter", "team": "ours"}
    (step,) = found["method"]["retrieval"]
    assert (step["interpolates"], step["method"], step["k"]) == (["a", "b"], "rrf", 60)
    # A run with a header is an input as any other.
    for name in ("plain", "told"):
        assert main(f"fuse a.trec {name}.trec --output again-{name}.trec".split()) == 0
    assert Path("again-told.trec").read_text() == Path("again-plain.trec").read_text()
    scores = evaluate(["plain.trec", "told.trec"], {"q": {"b": 1}}, measures=["ndcg@5"]).result.runs
    assert scores["told"] == scores["plain"]
    assert main(["fuse", "a.trec", "b.trec", "--ir-metadata", "nothing.yaml", "--output", "c.trec"]) == 2
    assert not Path("c.trec").exists()
