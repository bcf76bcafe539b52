"""Small collections in the layouts of MTEB's tasks and of the MIMO paper's benchmark files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Rows = Sequence[dict[str, Any]]


def tables(lang: str, count: int = 3) -> dict[str, Rows]:
    """Docids `LANG0`, ...; a query's own document has grade 3, another one is judged and not relevant."""
    return {
        "corpus": [{"_id": f"{lang}{n}", "title": f"T{n}", "text": f"text {lang} {n}"} for n in range(count)],
        "queries": [{"_id": str(n), "text": f"query {lang} {n}"} for n in range(count)],
        "qrels": [
            {"query-id": str(n), "corpus-id": f"{lang}{(n + step) % count}", "score": score}
            for n in range(count)
            for step, score in enumerate((3, 0))
        ],
    }


def write_parquet(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_mteb(directory: Path, lang: str, split: str = "dev", made: dict[str, Rows] | None = None) -> None:
    for part, rows in (made or tables(lang)).items():
        write_parquet(directory / f"{lang}-{part}" / f"{split}-00000-of-00001.parquet", rows)


def write_paper(directory: Path, languages: Sequence[str] = ("de", "fi"), count: int = 4) -> None:
    """Every language version of a document is relevant to every version of its query."""
    pairs = [(lang, n) for n in range(count) for lang in languages]
    write_jsonl(
        directory / "corpus.jsonl",
        [{f"doc_{lang}_{n}": {"text": f"text {lang} {n}", "lang": lang}} for lang, n in pairs],
    )
    write_jsonl(
        directory / "queries.jsonl",
        [{"_id": f"{lang}_q_{n}", "text": f"query {lang} {n}", "lang": lang} for lang, n in pairs],
    )
    write_jsonl(
        directory / "qrels.jsonl",
        [{f"{lang}_q_{n}": {f"doc_{other}_{n}": 1 for other in languages}} for lang, n in pairs],
    )
