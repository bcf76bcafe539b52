"""Tiny files in the true layout of MIRACL and Mr. TyDi, for ir_datasets' real classes.

`write(home)` fills a directory that is to be IR_DATASETS_HOME; it must be set before ir_datasets is imported.
What is in it, so that tests can count on it:

- `miracl/de` and `miracl/sw`: documents `0#0` .. `9#2`, three passages to each of ten articles, so all docids
  collide. `dev` has queries `0` .. `4` with qrels (one relevant and one judged not relevant passage each),
  `test-b` has queries `5` .. `7` without qrels. Query ids collide as well.
- `mr-tydi/fi` and `mr-tydi/ko`: documents `0#0` .. `9#2` without a title; `dev` has queries `0` .. `2`,
  `test` `3` .. `5`, with one relevant passage each; all of them are also in the split-less `mr-tydi/fi`.
- `mmarco/v2/de` and `mmarco/v2/dt`: passages `0` .. `19`; `dev` and `dev/small` with queries `100` .. `102`,
  `train` with queries `200` .. `207` whose qrels (of msmarco-passage) and triples are there too. Triples come
  twice, with another negative the second time.
- `msmarco-passage/train`: the same passages and queries in English; no triples of its own.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ARTICLES = 10
PASSAGES = 3
# MIRACL's number of shards; all must be there.
MIRACL_SHARDS = {"de": 32, "sw": 1}
MR_TYDI_FOLDERS = {"fi": "mrtydi-v1.0-finnish", "ko": "mrtydi-v1.0-korean"}
MMARCO_NAMES = {"de": "german", "dt": "dutch"}

_WORDS = {
    "de": ("Der See", "liegt im Norden", "Wie tief ist der See"),
    "sw": ("Ziwa hili", "liko kaskazini", "Ziwa lina kina gani"),
    "fi": ("Järvi", "on pohjoisessa", "Kuinka syvä järvi on"),
    "ko": ("호수는", "북쪽에 있다", "호수는 얼마나 깊은가"),
    "dt": ("Het meer", "ligt in het noorden", "Hoe diep is het meer"),
    "en": ("The lake", "lies in the north", "How deep is the lake"),
}


def write(home: Path) -> None:
    """Writes all of it below `home`."""
    for lang in MIRACL_SHARDS:
        _write_miracl(home / "miracl" / "v1.0" / lang, lang)
    for lang, folder in MR_TYDI_FOLDERS.items():
        _write_mr_tydi(home / "mr-tydi" / f"{lang}.data" / folder, lang)
    _write_mmarco(home)
    _write_msmarco(home / "msmarco-passage")


def docids() -> list[str]:
    """The docids of each MIRACL and Mr. TyDi language, in order."""
    return [f"{article}#{passage}" for article in range(ARTICLES) for passage in range(PASSAGES)]


def passage(lang: str, docid: str) -> str:
    """The text of a passage."""
    subject, predicate, _ = _WORDS[lang]
    return f"{subject} {docid.replace('#', ' ')} {predicate}"


def question(lang: str, number: int) -> str:
    """The text of a query."""
    return f"{_WORDS[lang][2]} {number}?"


def _write_miracl(directory: Path, lang: str) -> None:
    shards = MIRACL_SHARDS[lang]
    for shard in range(shards):
        # The first two shards hold documents, so that reading goes over the end of a file.
        own = docids()[shard::2] if shards > 1 and shard < 2 else docids() if shards == 1 else []
        rows = (
            {"docid": docid, "title": f"{lang} {docid[0]}", "text": passage(lang, docid)} for docid in own
        )
        _jsonl_gz(directory / "docs" / f"docs-{shard}.jsonl.gz", rows)
    _tsv(directory / "dev" / "topics.tsv", [(str(number), question(lang, number)) for number in range(5)])
    judgments = []
    for number in range(5):
        judgments.append((str(number), "Q0", f"{number}#0", "1"))
        judgments.append((str(number), "Q0", f"{number}#1", "0"))
    _tsv(directory / "dev" / "qrels.tsv", judgments)
    topics = [(str(number), question(lang, number)) for number in range(5, 8)]
    _tsv(directory / "test-b" / "topics.tsv", topics)


def _write_mr_tydi(directory: Path, lang: str) -> None:
    rows = ({"id": docid, "contents": passage(lang, docid)} for docid in docids())
    _jsonl_gz(directory / "collection" / "docs.jsonl.gz", rows)
    splits: Mapping[str, Iterable[int]] = {"": range(6), ".train": (), ".dev": range(3), ".test": range(3, 6)}
    for suffix, numbers in splits.items():
        queries = [(str(number), question(lang, number)) for number in numbers]
        _tsv(directory / f"topic{suffix}.tsv", queries)
        _tsv(
            directory / f"qrels{suffix}.txt", [(str(number), "Q0", f"{number}#0", "1") for number in numbers]
        )


def _write_mmarco(home: Path) -> None:
    directory = home / "mmarco"
    for lang, name in MMARCO_NAMES.items():
        docs = [(str(number), passage(lang, f"{number}#0")) for number in range(20)]
        _tsv(directory / "v2" / f"{name}_collection.tsv", docs)
        dev = [(str(number), question(lang, number)) for number in range(100, 103)]
        _tsv(directory / "v2" / f"{name}.queries.dev.tsv", dev)
        train = [(str(number), question(lang, number)) for number in range(200, 208)]
        _tsv(directory / "v2" / f"{name}.queries.train.tsv", train)
    qrels = [(str(number), "0", str(number - 100), "1") for number in range(100, 103)]
    _tsv(directory / "qrels.dev.tsv", qrels)
    _tsv(directory / "qrels.dev.small.tsv", qrels)
    train_qrels = [(str(number), "0", str(number - 195), "1") for number in range(200, 208)]
    _tsv(home / "msmarco-passage" / "train" / "qrels", train_qrels)
    triples = [
        (str(number), str(number - 195), str(negative - number))
        for negative in (211, 210)
        for number in range(200, 208)
    ]
    _tsv(directory / "triples.train.ids.small.tsv", triples)


def _write_msmarco(directory: Path) -> None:
    docs = [(str(number), passage("en", f"{number}#0")) for number in range(20)]
    _tsv(directory / "collection.tsv", docs)
    # Without it ir_datasets takes the collection for one of an older release, and deletes it.
    (directory / "irds_version.txt").write_text("v2", encoding="utf-8")
    queries = [(str(number), question("en", number)) for number in range(200, 208)]
    _tsv(directory / "train" / "queries.tsv", queries)


def _jsonl_gz(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _tsv(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


# Judged in 2022, in 2023, and the languages that have judgments for each.
NEUCLIR_2022 = {"100": ("zho", "rus"), "101": ("zho",), "102": ("rus", "fas")}
NEUCLIR_2023 = {"200": ("zho", "rus", "fas"), "201": ("rus",)}
_NEUCLIR_LANGUAGES = ("fas", "rus", "zho")


def write_neuclir(home: Path) -> None:
    """Writes NeuCLIR 1, which `write` leaves out: three documents a language, `fas-0` .. `zho-2`.

    Document 0 of a language is relevant (3), document 1 is not (0), to every topic that is judged in the
    language; topic `109` of 2022 and `209` of 2023 are judged in none.
    """
    directory = home / "neuclir"
    for lang in _NEUCLIR_LANGUAGES:
        rows = (
            {
                "id": f"{lang}-{number}",
                "title": f"{lang} news {number}",
                "text": f"{lang} text {number}",
                "url": "https://example.org/",
                "time": "2017-01-01",
                "cc_file": "crawl",
            }
            for number in range(3)
        )
        _jsonl_gz(directory / "1" / lang / "docs.jsonl.gz", rows)
    for year, judged, other in (("2022", NEUCLIR_2022, "109"), ("2023", NEUCLIR_2023, "209")):
        folder = directory / f"trec-{year}"
        folder.mkdir(parents=True, exist_ok=True)
        topics = [json.dumps(_neuclir_topic(number, year)) for number in (*judged, other)]
        (folder / "topics.jsonl").write_text("\n".join(topics) + "\n", encoding="utf-8")
    _tsv(directory / "trec-2022" / "qrels", _neuclir_qrels(NEUCLIR_2022, _NEUCLIR_LANGUAGES))
    with tarfile.open(directory / "trec-2023" / "qrels.tar.gz", "w:gz") as archive:
        for name, languages in (
            ("", _NEUCLIR_LANGUAGES),
            *((f".{one}", (one,)) for one in _NEUCLIR_LANGUAGES),
        ):
            lines = "".join("\t".join(row) + "\n" for row in _neuclir_qrels(NEUCLIR_2023, languages))
            member = tarfile.TarInfo(f"qrels.final.gains{name}")
            member.size = len(lines.encode())
            archive.addfile(member, io.BytesIO(lines.encode()))


def _neuclir_topic(number: str, year: str) -> dict[str, object]:
    def texts(lang: str, source: str) -> dict[str, str]:
        kinds = ("title", "description", "narrative")
        # The human translations of 2023 have no narrative.
        if source == "human translation" and year == "2023":
            kinds = kinds[:2]
        return {"lang": lang, "source": source} | {
            f"topic_{kind}": f"{lang} {kind} {number}" for kind in kinds
        }

    translated = [
        texts(lang, source)
        for lang in _NEUCLIR_LANGUAGES
        for source in ("human translation", "google translation")
    ]
    return {
        "topic_id": number,
        "languages_with_qrels": list(_NEUCLIR_LANGUAGES),
        "topics": [texts("eng", "original"), *translated],
    }


def _neuclir_qrels(
    judged: Mapping[str, tuple[str, ...]], languages: tuple[str, ...]
) -> list[tuple[str, ...]]:
    return [
        (query, lang, f"{lang}-{number}", relevance)
        for query, own in judged.items()
        for lang in languages
        if lang in own
        for number, relevance in ((0, "3"), (1, "0"))
    ]
