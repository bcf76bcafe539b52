"""What a config may say; what is wrong with it is said at once, each with its line."""

from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.benchmark.config import BenchmarkConfig
from mimo_plugin.benchmark.loading import check_languages, load_config
from mimo_plugin.benchmark.settings import configs_directory
from mimo_plugin.core.errors import UsageError

GOOD = """\
title: Two
setting: mlir
collections: {de: miracl/de/dev, sw: miracl/sw/dev}
measures: [nDCG@10, R@100]
"""


def write(directory: Path, text: str, name: str = "own.yaml") -> str:
    path = directory / name
    path.write_text(dedent(text), encoding="utf-8")
    return str(path)


def problems(directory: Path, text: str, **options: object) -> list[str]:
    """The error's lines, each without the file, but with its line number."""
    path = write(directory, text)
    with pytest.raises(UsageError) as caught:
        load_config(path, **options)  # type: ignore[arg-type]
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.name == "own"
    assert config.measures == ("ndcg@10", "recall@100")
    assert config.languages == ("de", "sw")
    assert config.languages_within is None
    assert (config.test, config.correction, config.alpha, config.depth) == ("student", "holm", 0.05, 100)
    assert (config.fairness, config.geometry, config.bm25, config.fusion) == (None, None, None, ())
    assert not config.topics.shared
    one = load_config(write(tmp_path, GOOD), languages=["sw"])
    assert one.chosen_collections == {"sw": "miracl/sw/dev"}
    assert one.all_collections == config.all_collections
    assert one.pooled
    assert config.pooled


def test_every_field_that_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    text = """\
        title: 7
        setting: mlri
        collections:
          de: miracl/de/dev
          d e: miracl/sw/dev
          no: 5
        languages: [de, no, 5]
        measures:
          - ndcg@20
          - ndgc@10
          - judged
        dept: 100
        depth: "100"
        alpha: 5
        test: studnet
        """
    keys = ", ".join(BenchmarkConfig.model_fields)
    assert problems(tmp_path, text, data="hub:x", fairness=["peer@x"]) == [
        "1: title: found 7, expected a valid string",
        "2: setting: found 'mlri', expected 'multi-monolingual', 'mlir', 'clir' or 'mixed-monolingual'"
        "; near: mlir",
        "5: collections.d e: found 'd e', expected a language code such as de",
        "6: collections.no: found 5, expected a valid string",
        "7: languages[2]: found 5, expected a valid string",
        "10: measures[1]: unknown measure 'ndgc@10'; near: ndcg; expected one of ndcg, ndcg@k, map, map@k, "
        "mrr, mrr@k, recall@k, p@k, success@k, rprec, judged@k",
        "11: measures[2]: measure 'judged' has no cutoff, expected one, for example judged@100",
        "13: depth: found '100', expected a valid integer",
        "15: test: found 'studnet', expected 'student', 'permutation' or 'tukey-hsd'; near: student",
        "14: alpha: found 5, expected less than 1",
        f"12: dept: unknown key, expected one of {keys}; near: depth",
        "--data hub:x: expected hub:OWNER/NAME[@REVISION][/FOLDER], such as hub:owner/benchmarks/belebele",
        "--fairness: found 'peer@x', expected such as MRC@5,10,20 PEER@20,100",
    ]


def test_fields_that_contradict_each_other(tmp_path: Path) -> None:
    text = """\
        title: Two
        setting: mlir
        collections: {de: miracl/de/dev, sw: "path:{data}/x"}
        languages: [de, fr, de]
        measures:
          - ndcg@20
          - recall@1000
        fairness: {cutoff: 20, peer: [5, 200]}
        bm25: {analyzers: language}
        fusion:
          - {name: bm25, systems: [a, b]}
        reference:
          - {system: mDPR, measure: mrr@10, per_language: {en: 0.3}, source: x}
        """
    assert problems(tmp_path, text, languages=["it"], fairness=["mrc@300"]) == [
        "3: collections: found {data}, expected a key 'obtain' that says where to get its files",
        "4: languages[1]: 'fr' is not in the collections, expected one of de, sw",
        "4: languages[2]: 'de' is listed twice, expected each language once",
        "7: measures[1]: a cutoff of 1000 is deeper than depth, which is 100, expected a depth of 1000 or "
        "more",
        "8: fairness.peer[1]: a cutoff of 200 is deeper than depth, which is 100, expected a depth of 200 or "
        "more",
        "9: bm25.analyzers: found 'language', expected 'plain': in mlir one index holds several languages",
        "11: fusion[0].name: 'bm25' is the name of another system, expected a different name",
        "13: reference[0].measure: mrr@10 is not measured here, expected one of ndcg@20, recall@1000",
        "13: reference[0].per_language.en: 'en' is not in the collections, expected one of de, sw",
        "--languages: 'it' is not in this benchmark, expected some of de, fr, de",
        "--fairness: 300 is deeper than the config's depth, which is 100, expected cutoffs of 100 at most",
    ]


def test_records_inside_are_reported_field_by_field(tmp_path: Path) -> None:
    text = """\
        title: Two
        setting: mlir
        collections: {de: miracl/de/dev, sw: "path:{data}"}
        measures: [ndcg@20]
        depth: 10
        fairness: {cutof: 20, target: relevent}
        geometry: {texts: 1}
        bm25: {analyzers: true}
        topics: {field: title}
        fusion:
          - {name: both, systems: [bm25], method: rrf}
          - {name: sum, systems: [a, b], method: sum, k: 60, weights: [1]}
          - {name: self, systems: [self, b]}
        reference:
          - system: BM25
            measure: ndcg@20
            per_language: {de: 0.4, sv: 38.5}
            source: somewhere
          - {system: mDPR, measure: ndcg@20, per_language: {en: 0.3}, source: [x]}
          - {system: none, measure: ndcg@20, source: x}
        """
    assert problems(tmp_path, text) == [
        "3: collections.sw: 'path:{data}', expected {data} as the start of a path: path:{data}/FOLDER",
        "9: topics: field applies to shared topics only, expected `shared: true` with it",
        "6: fairness.target: found 'relevent', expected 'relevant', 'collection' or 'uniform'"
        "; near: relevant",
        "6: fairness.cutof: unknown key, expected one of cutoff, target, peer, mrc; near: cutoff",
        "7: geometry.texts: found 1, expected greater than or equal to 2",
        "8: bm25.analyzers: found true, expected 'language' or 'plain'",
        "11: fusion[0].systems: found a list of 1: Tuple should have at least 2 items after validation, "
        "not 1",
        "12: fusion[1]: k is 60: it belongs to rrf, leave it out or use the method rrf; 1 weights for 2 "
        "runs, expected one for each run",
        "13: fusion[2]: 'self' is a part of itself, expected other systems",
        "17: reference[0].per_language.sv: found 38.5, expected less than or equal to 1",
        "19: reference[1].source: found a list of 1, expected a valid string",
        "20: reference[2]: has no score, expected macro, per_language or both",
    ]


def test_what_is_missing_and_what_contradicts(tmp_path: Path) -> None:
    text = """\
        setting: multi-monolingual
        collections: [mimo-sample, mimo-sample, "path:{data}/x"]
        baseline: bm25
        test: tukey-hsd
        """
    assert problems(tmp_path, text + "fields: []\n") == [
        "1: title: is missing, expected a value",
        "5: fields: found a list of 0: Tuple should have at least 1 item after validation, not 0",
        "1: measures: is missing, expected a value",
    ]
    assert problems(tmp_path, text + "title: x\n        measures: [judged@10, judged@10]\n") == [
        "2: collections: found a list, expected a mapping language: collection, since multi-monolingual has "
        "one index per language",
        "2: collections[1]: 'mimo-sample' is listed twice, expected each collection once",
        "2: collections: found {data}, expected a key 'obtain' that says where to get its files",
        "6: measures[0]: judged@10 is no measure of quality, expected one such as ndcg@20 as the first",
        "6: measures[1]: judged@10 is listed twice, expected each measure once",
        "3: baseline: found 'bm25', expected none: tukey-hsd compares all systems with each other",
    ]
    assert problems(tmp_path, GOOD.replace("{de: miracl/de/dev, sw: miracl/sw/dev}", "mimo-sample")) == [
        "3: collections: found 'mimo-sample', expected a mapping language: collection, or a list of "
        "collections that hold several languages"
    ]


def test_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'miracl-dve': no such config, expected one of .*near: miracl-dev"):
        load_config("miracl-dve")
    gone = tmp_path / "miracl-dev.yaml"
    with pytest.raises(
        UsageError, match="no such file.*; the packaged config of that name .* path: miracl-dev$"
    ):
        load_config(str(gone))
    with pytest.raises(UsageError, match="is a directory, expected a config in YAML"):
        load_config(f"{tmp_path}/")
    assert load_config(str(configs_directory() / "sample.yaml")) == load_config("sample")


def test_extending(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "name: parent\ndepth: 1000\nfairness: {cutoff: 5}\n", "base.yaml")
    child = write(tmp_path, "extends: base.yaml\nlanguages: [sw]\nfairness: {target: uniform}\ndepth: 500\n")
    config = load_config(child)
    assert (config.name, config.title, config.depth, config.languages) == ("own", "Two", 500, ("sw",))
    assert config.fairness is not None
    # A key takes the whole place of the extended one.
    assert (config.fairness.cutoff, config.fairness.target) == (20, "uniform")
    packaged = load_config(write(tmp_path, "extends: miracl-dev\nlanguages: [de]\n"))
    assert packaged.chosen_collections == {"de": "miracl/de/dev"}


def test_faults_are_reported_in_the_file_that_has_them(tmp_path: Path) -> None:
    base = write(tmp_path, GOOD + "dept: 1\nalpha: 2\n", "base.yaml")
    path = write(tmp_path, "extends: base.yaml\nlanguages: [fi]\nalpha: 3\n")
    with pytest.raises(UsageError) as caught:
        load_config(path, languages=["de"])
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        [f"{path}:3", "alpha"],
        [f"{base}:5", "dept"],
    ]
    write(tmp_path, GOOD, "base.yaml")
    write(tmp_path, "extends: base.yaml\nlanguages: [fi]\nalpha: 0.1\n")
    with pytest.raises(UsageError, match=rf"^{path}:2: languages\[0\]: 'fi' is not in the collections"):
        load_config(path)


def test_extending_what_is_not_there_or_oneself(tmp_path: Path) -> None:
    assert problems(tmp_path, "extends: own.yaml\n" + GOOD) == [
        "1: extends: is circular (own.yaml -> own.yaml), expected a chain that ends"
    ]
    (line,) = problems(tmp_path, "extends: miracl-dv\n")
    assert line.startswith("1: extends: 'miracl-dv': no such config, expected one of belebele, ")
    assert problems(tmp_path, "extends: [a, b]\n") == [
        "1: extends: expected the name of one config, or a file that ends in .yaml"
    ]


def test_paths_start_from_the_config(tmp_path: Path) -> None:
    text = GOOD.replace(
        "{de: miracl/de/dev, sw: miracl/sw/dev}", "['path:a#dev', 'path:/b', 'path:{data}/c']"
    )
    path = write(tmp_path, text + "obtain: from there\n")
    config = load_config(path, data="data")
    assert config.collections == (f"path:{tmp_path}/a#dev", "path:/b", "path:data/c")
    assert problems(tmp_path, GOOD, data="hub:x") == [
        "--data hub:x: expected hub:OWNER/NAME[@REVISION][/FOLDER], such as hub:owner/benchmarks/belebele"
    ]


def test_languages_of_collections_that_hold_several(tmp_path: Path) -> None:
    text = GOOD.replace("{de: miracl/de/dev, sw: miracl/sw/dev}", "[mimo-sample]")
    config = load_config(write(tmp_path, text), languages=["de", "xx,fr"])
    assert config.languages == ("de", "xx", "fr")
    assert config.languages_within == {"de", "xx", "fr"}
    assert config.chosen_collections == {"mimo-sample": "mimo-sample"}
    check_languages(config, {"de", "fr", "xx"})
    with pytest.raises(UsageError) as caught:
        check_languages(config, ["de", "fi", ""])
    assert str(caught.value).splitlines() == [
        "own: the collections have nothing in 'xx', expected one of de, fi",
        "own: the collections have nothing in 'fr', expected one of de, fi",
    ]


_KEYS = st.one_of(st.sampled_from([*BenchmarkConfig.model_fields, "extends", "shared"]), st.text(max_size=5))
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["mlir", "multi-monolingual", "ndcg@10", "de", "path:{data}/x", "hub:a/b", "rrf", "own.yaml"]
    ),
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4))
)


def _config_or_error(directory: Path, content: bytes) -> None:
    path = directory / "own.yaml"
    path.write_bytes(content)
    try:
        found = load_config(str(path))
    except UsageError as error:
        for line in str(error).splitlines():
            assert line.startswith((f"{path}:", "... and "))
            line.encode()
    else:
        assert isinstance(found, BenchmarkConfig)


@pytest.mark.slow
@given(
    text=st.one_of(
        st.text(max_size=60), st.binary(max_size=60), st.text("{}[]:-&*!? \n\"'a#|>%@", max_size=40)
    )
)
def test_any_text_gives_a_config_or_an_error(tmp_path: Path, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    _config_or_error(tmp_path, content)


@given(values=st.dictionaries(_KEYS, _VALUES, max_size=6), base=st.booleans())
def test_any_mapping_gives_a_config_or_an_error(
    tmp_path: Path, values: dict[str, object], base: bool
) -> None:
    good = yaml.safe_load(GOOD) if base else {}
    text = yaml.safe_dump({**good, **values}, allow_unicode=True)
    _config_or_error(tmp_path, text.encode("utf-8", "surrogatepass"))
