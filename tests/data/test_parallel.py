"""`mimo data parallel`: parallel texts of every kind of source become the pairs of stage 1."""

import gzip
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, DataError, MimoError, UsageError
from mimo_plugin.data.options import PairFilter, ParallelOptions, SourceOptions
from mimo_plugin.data.opus import CORPORA, LANGUAGES, opus_sources
from mimo_plugin.data.parallel import make_pairs, parse_sources
from mimo_plugin.data.writers import Made
from mimo_plugin.training.data import open_pairs

# (anchor, text)
SENTENCES = [
    ("The house is old.", "Das Haus ist alt."),
    ("The garden is large.", "Der Garten ist groß."),
    ("  The tree is green. ", "\u3000Der Baum ist grün."),
]
KEPT = [(text.strip(), "de", anchor.strip()) for anchor, text in SENTENCES]
Lines = list[tuple[str, str]]


def write_tsv(path: Path, lines: Lines) -> Path:
    content = "".join(f"{anchor}\t{text}\n" for anchor, text in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    return write_lines(path, [json.dumps(row) for row in rows])


def make(output: Path, *, options: ParallelOptions | None = None, **sources: Any) -> Made:
    found, _ = parse_sources(SourceOptions(**sources))
    return make_pairs(found, output, options or ParallelOptions(identity=False))


def rows(directory: Path) -> list[tuple[str, str, str]]:
    return [(row["text"], row["lang"], row["anchor"]) for row in open_pairs(directory).dataset]


def test_all_kinds_of_sources_give_the_same_pairs(tmp_path: Path) -> None:
    columns = [{"english": anchor, "non_english": text} for anchor, text in SENTENCES]
    moses = [
        write_lines(tmp_path / f"c.{side}", list(lines))
        for side, lines in zip(("en", "de"), zip(*SENTENCES, strict=True), strict=True)
    ]
    saved = datasets.Dataset.from_list(columns)
    saved.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "dict"))
    saved.to_parquet(str(tmp_path / "p.parquet"))
    saved.to_csv(str(tmp_path / "c.csv"))
    (tmp_path / "folder").mkdir()
    write_jsonl(tmp_path / "folder" / "train.jsonl", columns)
    packed = tmp_path / "j.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "folder" / "train.jsonl").read_bytes()))
    sources: dict[str, list[str]] = {
        "tsv": [
            f"de={write_tsv(tmp_path / 'plain.tsv', SENTENCES)}",
            f"de={write_tsv(tmp_path / 'packed.tsv.gz', SENTENCES)}",
        ],
        "moses": [f"de={moses[0]},{moses[1]}"],
        "datasets": [
            f"de={tmp_path / name}" for name in ("saved", "dict", "p.parquet", "c.csv", "folder", packed.name)
        ],
    }
    for kind, specs in sources.items():
        for number, spec in enumerate(specs):
            output = tmp_path / f"{kind}{number}"
            make(output, **{kind: [spec]})
            assert rows(output) == KEPT, spec


def test_filters_are_counted_per_language(tmp_path: Path) -> None:
    german = [
        *SENTENCES,
        ("", "leer auf der anderen Seite"),
        ("empty on the other side", " "),
        ("too short", "zu kurz, auf einer Seite"),
        ("x" * 513, "y" * 400),
        ("a sentence", "ein Satz, der ganz entschieden zu lang ausfällt"),
        ("The house is old.", "Ein zweites Mal dasselbe."),
        ("The house is old.", "Ein drittes Mal dasselbe."),
    ]
    french = [("The house is old.", "La maison est vieille.")]
    made = make(
        tmp_path / "out",
        tsv=[f"de={write_tsv(tmp_path / 'de.tsv', german)}", f"fr={write_tsv(tmp_path / 'fr.tsv', french)}"],
        options=ParallelOptions(),
    )
    assert made.new
    assert made.manifest.dropped == {
        "duplicate": {"de": 2},
        "empty": {"de": 2},
        "length ratio": {"de": 1},
        "too long": {"de": 1},
        "too short": {"de": 1},
    }
    assert made.manifest.languages == {"de": 3, "en": 3, "fr": 1}
    # the anchor texts that were kept, each once, though two languages share one
    identity = [(anchor.strip(), "en", anchor.strip()) for anchor, _ in SENTENCES]
    assert rows(tmp_path / "out") == [*KEPT, ("La maison est vieille.", "fr", "The house is old."), *identity]


@settings(max_examples=20)
@given(
    anchors=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    most=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_the_limit_keeps_a_sample_of_distinct_anchors(
    anchors: list[int], most: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("limit")
    lines = [(f"sentence number {anchor}", f"Satz Nummer {n}, {anchor}") for n, anchor in enumerate(anchors)]
    halves = [
        write_tsv(directory / f"{name}.tsv", part)
        for name, part in (("a", lines[: len(lines) // 2]), ("b", lines[len(lines) // 2 :]))
    ]
    options = ParallelOptions(max_pairs=most, seed=seed)
    found = []
    for number, order in enumerate((halves, halves[::-1])):
        made = make(directory / str(number), tsv=[f"de={path}" for path in order], options=options)
        kept = rows(directory / str(number))
        german = [(anchor, text) for text, lang, anchor in kept if lang == "de"]
        assert set(german) <= set(lines)
        assert len(german) == len(dict(german)) == min(most, len(set(anchors)))
        dropped = Counter({reason: counts.get("de", 0) for reason, counts in made.manifest.dropped.items()})
        assert dropped.total() == len(lines) - len(german)
        english = [(text, anchor) for text, lang, anchor in kept if lang == "en"]
        assert sorted(english) == sorted((anchor, anchor) for anchor, _ in german)
        found.append(dict(german))
    # which anchors are kept does not depend on where they stand, only which of their translations
    assert found[0].keys() == found[1].keys()


def test_an_aligned_blank_line_is_an_empty_text(tmp_path: Path) -> None:
    english = write_lines(tmp_path / "en", ["", "The house is old.", "No translation.", ""])
    german = write_lines(tmp_path / "de", ["Nur auf einer Seite.", "Das Haus ist alt.", "", ""])
    made = make(tmp_path / "out", moses=[f"de={english},{german}"])
    assert rows(tmp_path / "out") == KEPT[:1]
    assert made.manifest.dropped == {"empty": {"de": 2}}


def test_nested_columns_splits_and_nulls(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "test.jsonl",
        [{"translation": {"en": anchor, "de": text}} for anchor, text in SENTENCES]
        + [{"translation": {"en": None, "de": "Ohne Gegenstück."}}],
    )
    made = make(tmp_path / "out", datasets=[f"de={tmp_path}#test"], columns="translation.en,translation.de")
    assert rows(tmp_path / "out") == KEPT
    assert made.manifest.dropped == {"empty": {"de": 1}}


def test_a_second_run_leaves_what_is_there(tmp_path: Path) -> None:
    source = write_tsv(tmp_path / "de.tsv", SENTENCES)
    first = make(tmp_path / "out", tsv=[f"de={source}"])
    again = make(tmp_path / "out", tsv=[f"de={source}"])
    assert (first.new, again.new) == (True, False)
    assert first.manifest == again.manifest
    with pytest.raises(ArtifactError, match="max_pairs is 7, there it is 500000"):
        make(tmp_path / "out", tsv=[f"de={source}"], options=ParallelOptions(max_pairs=7, identity=False))
    write_tsv(source, SENTENCES[:2])
    with pytest.raises(ArtifactError, match="its sources differ"):
        make(tmp_path / "out", tsv=[f"de={source}"])
    changed = make(
        tmp_path / "out", tsv=[f"de={source}"], options=ParallelOptions(identity=False, overwrite=True)
    )
    assert changed.manifest.rows == 2


def test_languages_without_pairs_are_all_named_and_nothing_is_written(tmp_path: Path) -> None:
    short = write_tsv(tmp_path / "short.tsv", [("a", "b"), ("c", "d")])
    empty = write_tsv(tmp_path / "empty.tsv", [])
    good = write_tsv(tmp_path / "good.tsv", SENTENCES)
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", tsv=[f"de={good}", f"fr={short}", f"nl={empty}"])
    advice = "give another source, leave the language out, or loosen the filters"
    assert str(caught.value).splitlines() == [
        f"fr: no pairs are left of 2 (too short 2), expected at least one: {advice}",
        f"nl: no pairs are left of 0, expected at least one: {advice}",
    ]
    assert not (tmp_path / "out").exists()


def test_bad_lines_of_all_files_are_reported_by_file_and_line(tmp_path: Path) -> None:
    one = tmp_path / "one.tsv"
    one.write_bytes(b"The house is old.\tDas Haus ist alt.\nno tab\n\xff\tx\n")
    two = write_lines(tmp_path / "two.tsv", ["a\tb\t0.93\tc"])
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", tsv=[f"de={one}", f"fr={two}"])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{one}:2: 1 columns, expected 2: en text, tab, de text"
    assert lines[1].startswith(f"{one}:3: not valid UTF-8 (byte 0xff at column 1)")
    assert lines[2] == f"{two}:1: 4 columns, expected 2: en text, tab, fr text (`cut -f` removes the others)"
    assert len(lines) == 3
    assert not (tmp_path / "out").exists()


def test_an_interrupted_download_is_one_line(tmp_path: Path) -> None:
    whole = write_tsv(tmp_path / "whole.tsv.gz", [(f"sentence {n}", f"Satz Nr. {n}") for n in range(9999)])
    cut = tmp_path / "cut.tsv.gz"
    cut.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"cut.tsv.gz:\d+: damaged gzip file .*: fetch it again$"):
        make(tmp_path / "out", tsv=[f"de={cut}"])
    with pytest.raises(DataError, match=r"cut.tsv.gz: cannot be read to its end .*: fetch it again$"):
        make(tmp_path / "out", moses=[f"de={cut},{whole}"])
    parquet = tmp_path / "cut.parquet"
    datasets.Dataset.from_list([{"english": "a", "non_english": "b"}]).to_parquet(str(parquet))
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", datasets=[f"de={parquet}"])
    assert str(caught.value).startswith(f"{parquet}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_sources_are_reported_together(tmp_path: Path) -> None:
    good = write_tsv(tmp_path / "good.tsv", SENTENCES)
    english = write_lines(tmp_path / "en", ["a", "b", "c"])
    columns = write_jsonl(tmp_path / "c.jsonl", [{"en": "a", "de": "b"}])
    with pytest.raises(DataError) as caught:
        make(
            tmp_path / "out",
            tsv=[f"de={good}", f"de={tmp_path / 'gone.tsv'}", f"de={tmp_path}"],
            moses=[f"fr={english},{columns}"],
            datasets=[f"nl={columns}", "it=hub-user/it-pairs:en-it", f"pt={good}", "hi=./a/b"],
        )
    lines = str(caught.value).splitlines()
    assert lines == [
        f"{tmp_path}/gone.tsv: no such file, expected parallel text: check the path",
        f"{tmp_path}: is a directory, expected a text file, plain or .gz",
        f"{english} has 3 lines and {columns} has 1, expected the same number: give the two files "
        "of one alignment, or fetch them again",
        f"{columns}: no column 'english', it has 'en', 'de': name the column of anchor texts and that of "
        "the texts with --columns ANCHOR,TEXT",
        "hub-user/it-pairs:en-it: no such file or directory, and HF_HUB_OFFLINE is set: download it on a "
        "machine with a network (hf download --repo-type dataset hub-user/it-pairs) and give its directory",
        f"{good}: expected a file that ends in .parquet, .json, .jsonl, .csv, .arrow, or in one of these and "
        ".gz; for tab-separated text there is --tsv",
        "./a/b: no such file or directory; expected one, or the id of a hub dataset",
    ]
    assert not (tmp_path / "out").exists()


def test_rows_that_are_no_text_are_faults(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "n.jsonl", [{"english": 1, "non_english": 2}])
    with pytest.raises(
        DataError, match=r"n.jsonl: 'non_english' of row 1 is of type int \(2\), expected a str"
    ):
        make(tmp_path / "out", datasets=[f"de={source}"])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "no source was given"),
        ({"tsv": ["de"]}, "--tsv de: expected LANG=SOURCE"),
        ({"tsv": ["=x"]}, "--tsv =x: expected LANG=SOURCE"),
        ({"tsv": ["en=x"]}, "en is the anchor language"),
        ({"tsv": ["de=x", "de=x"]}, "the same source was given twice"),
        ({"moses": ["de=x"]}, "1 files, expected de=EN_FILE,DE_FILE"),
        ({"datasets": ["de=x"], "columns": "a"}, "--columns a: expected two names"),
    ],
)
def test_options_that_name_no_source(sources: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_sources(SourceOptions(**sources))


def test_the_hub_is_named_with_config_and_split() -> None:
    (source,), _ = parse_sources(SourceOptions(datasets=("de=user/pairs:de-en#validation",), columns="a,b"))
    assert (source.lang, source.name, source.config, source.split, source.anchor_column) == (  # type: ignore[union-attr]
        "de",
        "user/pairs",
        "de-en",
        "validation",
        "a",
    )


def test_the_command_prints_what_it_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_tsv(tmp_path / "de.tsv", [*SENTENCES, ("short", "kurz")])
    arguments = ["data", "parallel", "--tsv", f"de={source}", "--output", str(tmp_path / "out"), "--stats"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert first.startswith(f"{tmp_path / 'out'}: written\n\n6 pairs in 2 languages, anchor en\n")
    assert "too short" in first
    assert "Rows and mean length per language" in first
    assert main(arguments) == 0
    assert "finished before" in capsys.readouterr().out
    assert main([*arguments[:-1], "--max-ratio", "2"]) == 1
    assert "max_ratio is 2.0, there it is 3.0" in capsys.readouterr().err
    with pytest.raises(MimoError, match="lengths from 9 to 3"):
        PairFilter(9, 3)


def test_a_failure_leaves_no_directory_and_only_its_own_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = write_lines(tmp_path / "three.tsv", ["one\ttwo\tthree"])
    empty = write_lines(tmp_path / "empty.tsv", [])
    broken = write_lines(tmp_path / "broken.jsonl", ['{"english": "hello",'])
    output = tmp_path / "pairs"
    arguments = ["data", "parallel", "--output", str(output), "--no-progress"]
    assert main([*arguments, "--tsv", f"de={three}", f"fr={empty}"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said] == [f"{three}:1", "fr"]
    assert main([*arguments, "--dataset", f"de={broken}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mimo: {broken}: cannot be read after row 0")
    assert not output.exists()


def test_nested_columns_with_nulls_and_several_translations(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    nested = pa.struct([("en", pa.string()), ("de", pa.string())])
    columns = [None, {"en": None, "de": "Das ist allein."}, {"en": SENTENCES[0][0], "de": SENTENCES[0][1]}]
    parquet.write_table(pa.table({"t": pa.array(columns, nested)}), tmp_path / "nulls.parquet")
    made = make(tmp_path / "nulls", datasets=[f"de={tmp_path / 'nulls.parquet'}"], columns="t.en,t.de")
    assert rows(tmp_path / "nulls") == KEPT[:1]
    assert made.manifest.dropped["empty"]["de"] == 2

    feature = datasets.TranslationVariableLanguages(languages=["de", "en", "fr"])
    given = [
        {"en": SENTENCES[0][0], "de": [SENTENCES[0][1], "Dieses Haus ist alt."]},
        {"en": [SENTENCES[1][0], "This garden is big."], "de": SENTENCES[1][1]},
        {"en": "Nobody says it in German.", "fr": "Personne ne le dit."},
    ]
    lists = [feature.encode_example(one) for one in given]
    told = datasets.Dataset.from_dict({"t": given}, features=datasets.Features(t=feature))
    told.to_parquet(str(tmp_path / "lists.parquet"))
    # The lists as a row of their own, and a list of pairs.
    write_jsonl(tmp_path / "row.jsonl", lists)
    pairs = [
        [{"language": lang, "translation": text} for lang, text in zip(*one.values(), strict=True)]
        for one in lists
    ]
    write_jsonl(tmp_path / "pairs.jsonl", [{"t": one} for one in pairs])
    for name, names in (("lists.parquet", "t.en,t.de"), ("row.jsonl", "en,de"), ("pairs.jsonl", "t.en,t.de")):
        made = make(tmp_path / f"{name}.pairs", datasets=[f"de={tmp_path / name}"], columns=names)
        assert sorted(rows(tmp_path / f"{name}.pairs")) == sorted(
            [*KEPT[:2], ("Der Garten ist groß.", "de", "This garden is big.")]
        ), name
        # The second German text of one English text, and the row without German.
        assert {kind: by["de"] for kind, by in made.manifest.dropped.items()} == {"duplicate": 1, "empty": 1}

    write_jsonl(tmp_path / "odd.jsonl", [{"t": {"language": ["en", "de"], "translation": ["one only"]}}])
    with pytest.raises(DataError, match=r"odd.jsonl: 2 languages and 1 translations in one row"):
        make(tmp_path / "odd", datasets=[f"de={tmp_path / 'odd.jsonl'}"], columns="t.en,t.de")


def test_opus_in_every_form_that_it_is_handed_out_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    downloads = tmp_path / "opus"
    (downloads / "deep").mkdir(parents=True)

    def texts(name: str) -> tuple[list[str], list[str]]:
        return [f"The {name} is {n} years old." for n in (1, 2)], [f"{name}: {n} Jahre alt" for n in (1, 2)]

    def zipped(path: Path, name: str, pair: str, lang: str) -> None:
        english, other = texts(name)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README", "read me")
            archive.writestr(f"{name}.{pair}.en", "".join(line + "\n" for line in english))
            archive.writestr(f"{name}.{pair}.{lang}", "".join(line + "\n" for line in other))

    zipped(downloads / "de-en.txt.zip", "Europarl", "de-en", "de")
    zipped(
        downloads / "deep" / "OpenSubtitles_latest_moses_en-zh_cn.txt.zip",
        "OpenSubtitles",
        "en-zh_cn",
        "zh_cn",
    )
    english, other = texts("WikiMatrix")
    write_lines(downloads / "WikiMatrix.de-en.en", english)
    write_lines(downloads / "deep" / "WikiMatrix.de-en.de", other)
    write_tsv(downloads / "Tatoeba-eng-cmn-train.tsv.gz", list(zip(*texts("Tatoeba"), strict=True)))
    folder = downloads / "parallel-sentences-talks" / "en-zh-cn"
    folder.mkdir(parents=True)
    rows_ = [{"english": a, "non_english": b} for a, b in zip(*texts("Talks"), strict=True)]
    datasets.Dataset.from_list(rows_).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    datasets.Dataset.from_list(rows_[:1]).to_parquet(str(folder / "dev-00000-of-00001.parquet"))

    chosen = ["--opus-corpora", "Europarl", "opensubtitles", "Talks", "Tatoeba", "WikiMatrix"]
    arguments = ["data", "parallel", "--opus", str(downloads), *chosen, "--opus-languages", "de", "zh"]
    output = ["--output", str(tmp_path / "pairs"), "--no-identity", "--no-progress"]
    # Everything that is missing is said at once, and what no corpus has is not missed.
    assert main([*arguments, *output]) == 1
    errors = capsys.readouterr().err
    for corpus, lang in (("OpenSubtitles", "de"), ("Talks", "de"), ("Tatoeba", "de"), ("WikiMatrix", "zh")):
        assert f"no {corpus} for {lang}, expected" in errors
    assert "no Europarl" not in errors
    assert not (tmp_path / "pairs").exists()

    assert main([*arguments, *output, "--skip-missing"]) == 0
    told = capsys.readouterr().out
    assert "OPUS: 5 pairs of a corpus and a language" in told
    assert "no such texts in the corpus: Europarl zh" in told
    assert "not here and left out: OpenSubtitles de; Talks de; Tatoeba de; WikiMatrix zh" in told
    expected = {
        (text, lang, anchor)
        for name, lang in (
            *((name, "de") for name in ("Europarl", "WikiMatrix")),
            *((name, "zh") for name in ("OpenSubtitles", "Tatoeba", "Talks")),
        )
        for anchor, text in zip(*texts(name), strict=True)
    }
    assert set(rows(tmp_path / "pairs")) == expected

    zipped(downloads / "deep" / "again.zip", "Europarl", "de-en", "de")
    with pytest.raises(DataError, match="hold the same texts, expected only one"):
        opus_sources(str(downloads), corpora=["Europarl"], languages=["de"])
    (downloads / "deep" / "again.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="damaged zip file"):
        opus_sources(str(downloads))
    with pytest.raises(UsageError, match="unknown corpus 'Europal', expected some of Europarl, Glob"):
        opus_sources(str(downloads), corpora=["Europal"])
    with pytest.raises(DataError, match="download the corpora on a machine with a network"):
        opus_sources("hub")


def test_opus_of_the_paper_is_89_of_104() -> None:
    assert len(CORPORA) * len(LANGUAGES) == 104
    assert sum(len(corpus.without) for corpus in CORPORA) == 15
