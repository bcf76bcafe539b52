"""A tiny parallel world: pairs, a table and a collection in three languages, a teacher, and a recipe."""

from pathlib import Path
from typing import Any

import yaml
from helpers.beir import write_folder
from helpers.checkpoints import plain_xlmr, sentence_transformer

from mimo_plugin.data.writers import PairsWriter, TableWriter

WORDS = {
    "de": ["Haus", "Wort", "Suche", "Sprache", "Baum", "Wasser", "Buch", "Licht"],
    "en": ["house", "word", "search", "language", "tree", "water", "book", "light"],
    "fi": ["talo", "sana", "haku", "kieli", "puu", "vesi", "kirja", "valo"],
}
TOPICS = 16


def query(lang: str, number: int) -> str:
    words = WORDS[lang]
    return f"{words[number % 8]} {words[(3 * number + number // 8) % 8]} {number}"


def passage(lang: str, number: int) -> str:
    return f"{query(lang, number)} {WORDS[lang][(number + 5) % 8]} {query(lang, number + 1)}"


def write_world(directory: Path) -> Path:
    """Writes `pairs`, `table`, `test`, `teacher` and `recipe.yaml`; returns the recipe."""
    with PairsWriter(directory / "pairs", anchor="en", parameters={}, source={"made": "up"}) as pairs:
        for lang in WORDS:
            for number in range(TOPICS):
                pairs.add(passage(lang, number), lang, passage("en", number))
    with TableWriter(directory / "table", anchor="en", parameters={}, source={"made": "up"}) as table:
        for number in range(TOPICS):
            texts = {lang: (query(lang, number), passage(lang, number)) for lang in WORDS}
            table.add(f"q{number}", f"p{number}", texts)
    write_collection(directory / "test")
    teacher = plain_xlmr(directory / "plain", seed=5, hidden=16)
    sentence_transformer(directory / "teacher", teacher)
    return write_recipe(directory)


def write_collection(directory: Path) -> str:
    documents = [
        {"_id": f"{lang}:{number}", "text": passage(lang, number), "lang": lang}
        for lang in WORDS
        for number in range(TOPICS)
    ]
    queries = [
        {"_id": f"{lang}:{number}", "text": query(lang, number), "lang": lang}
        for lang in WORDS
        for number in range(TOPICS)
        # Some topics lack a version: units are not all of one size.
        if lang != "fi" or number % 4
    ]
    versions = {f"{lang}:{number}": 1 for lang in WORDS for number in range(TOPICS)}
    qrels = {
        row["_id"]: {docid: 1 for docid in versions if docid.endswith(f":{row['_id'].split(':')[1]}")}
        for row in queries
    }
    return write_folder(directory, documents, queries, qrels)


def recipe_values(**changes: Any) -> dict[str, Any]:
    stage = {"batch_size": 8, "steps": 4, "max_length": 24, "precision": "float32", "learning_rate": 1e-3}
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {"pairs": "pairs", "table": "table"},
        "collections": {"test": "path:test"},
        "student": {"checkpoint": "new:tiny", "vocabulary": 450},
        "teacher": {"checkpoint": "teacher"},
        "stage1": dict(stage),
        "stage2": {**stage, "mini_batch_size": 8},
        "systems": {
            "xlco": {"objective": "xlco"},
            "mimo": {"objective": "mimo", "lambda": 0.2},
        },
        "seeds": [1, 2],
        "baseline": "xlco",
    }
    return {**values, **changes}


def write_recipe(directory: Path, name: str = "recipe.yaml", **changes: Any) -> Path:
    path = directory / name
    path.write_text(yaml.safe_dump(recipe_values(**changes), sort_keys=False), encoding="utf-8")
    return path
