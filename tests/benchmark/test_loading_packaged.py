"""The configs that come with the package: every one loads, and says what its collections are."""

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import ir_datasets
import pytest
import yaml

from mimo_plugin.benchmark.loading import check_data, config_names, load_config
from mimo_plugin.benchmark.settings import configs_directory
from mimo_plugin.collections.loading import open_collection
from mimo_plugin.collections.pool import load
from mimo_plugin.collections.records import usual_language
from mimo_plugin.core.errors import DataError
from mimo_plugin.evaluation.measures import parse_measures
from mimo_plugin.evaluation.options import Setting

NAMES = [name for name, _ in config_names()]
MIRACL_16 = {"ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh"}
TYDI = {"ar", "bn", "en", "fi", "id", "ja", "ko", "ru", "sw", "te", "th"}
MMARCO = {"ar", "de", "es", "fr", "hi", "id", "it", "ja", "nl", "pt", "ru", "vi", "zh"}
# config -> languages, official measures
EXPECTED = {
    "miracl-dev": (MIRACL_16 | {"de", "yo"}, ["ndcg@10", "recall@100"]),
    "miracl-dev-16": (MIRACL_16, ["ndcg@10", "recall@100"]),
    "miracl-mixed": (MIRACL_16 | {"de", "yo"}, ["ndcg@10", "recall@100", "judged@10"]),
    "mrtydi-test": (TYDI, ["mrr@100", "recall@100"]),
    "mmarco-dev-small": (MMARCO, ["mrr@10"]),
    "neuclir-2022": ({"fa", "ru", "zh"}, ["ndcg@20"]),
    "neuclir-2023": ({"fa", "ru", "zh"}, ["ndcg@20"]),
    "miracl-hard-negatives": (MIRACL_16 | {"de", "yo"}, ["ndcg@10"]),
    "miracl-hard-negatives-10": (
        {"ar", "de", "en", "es", "fr", "hi", "id", "ja", "ru", "zh"},
        ["ndcg@10"],
    ),
    "neuclir-2022-hard-negatives": ({"ru", "zh"}, ["ndcg@20"]),
    "neuclir-2023-hard-negatives": ({"ru", "zh"}, ["ndcg@20"]),
    "belebele": (set(), ["ndcg@20"]),
    "xquad": (set(), ["ndcg@20"]),
    "mlqa": (set(), ["ndcg@20"]),
    "multieup": (set(), ["ndcg@20"]),
    "debian": (set(), ["ndcg@20"]),
    "sample": (set(), ["ndcg@20"]),
}


def test_all_are_there() -> None:
    assert set(NAMES) == set(EXPECTED)
    assert all(title for _, title in config_names())
    assert configs_directory().name == "eval_configs"


@pytest.mark.parametrize("name", NAMES)
def test_what_it_is(name: str) -> None:
    config = load_config(name)
    languages, measures = EXPECTED[name]
    assert config.name == name
    assert set(config.languages) == languages
    assert list(config.measures[: len(measures)]) == measures
    assert max(measure.cutoff or 0 for measure in parse_measures(config.measures)) <= config.depth
    assert config.note
    assert list(config.chosen_collections) == (list(config.languages) or list(config.all_collections))
    assert config.pooled is (len(config.all_collections) > 1)
    assert (config.setting is Setting.MIXED_MONOLINGUAL) is (name == "miracl-mixed")


@pytest.mark.parametrize("name", NAMES)
def test_its_collections_exist_in_its_languages(name: str) -> None:
    config = load_config(name)
    for language, spec in config.chosen_collections.items():
        if spec.startswith(("path:", "hub:")):
            assert config.obtain
            continue
        dataset = open_collection(spec)
        assert all(dataset.has(part) for part in ("docs", "queries", "qrels"))
        if language != spec:
            assert spec in list(ir_datasets.registry)
            assert usual_language(dataset.docs_lang()) == language
            assert (usual_language(dataset.queries_lang()) or config.topics.lang) == (
                "en" if config.topics.shared else language
            )
        if config.topics.field:
            assert config.topics.field in dataset.queries_cls()._fields


def test_offline_without_preparation() -> None:
    config = load_config("sample")
    check_data(config)
    pool = load(*config.collections, fields=config.fields)
    assert len({doc.lang for doc in pool.docs_iter()}) == 14


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith(("miracl-dev", "miracl-mixed", "mrtydi"))]
)
def test_published_scores_are_pyserinis(name: str) -> None:
    """Every number per language is that in the installed Pyserini's own file, where it is that version."""
    if version("pyserini") != "1.6.0":
        pytest.skip("the scores are those of Pyserini 1.6.0")
    corpus, split = ("mrtydi", "test") if "tydi" in name else ("miracl", "dev")
    text = (files("pyserini") / "2cr" / f"{corpus}.yaml").read_text(encoding="utf-8")
    published = set()
    for condition in yaml.load(text, yaml.CSafeLoader)["conditions"]:
        language = condition["name"].rpartition(".")[2]
        for own in condition["splits"]:
            scores = {key: score for part in own["scores"] for key, score in part.items()}
            if own["split"] == split:
                published |= {
                    (language, key.lower().replace("r@", "recall@").replace("mrrecall", "mrr"), score)
                    for key, score in scores.items()
                }
    config = load_config(name)
    checked = 0
    for reference in config.reference:
        for language, score in reference.per_language.items():
            assert (language, reference.measure, score) in published
            checked += 1
    assert checked or name == "miracl-mixed"


def test_averages_are_over_the_languages_that_are_chosen() -> None:
    def macro(name: str, system: str, **options: object) -> float | None:
        config = load_config(name, **options)  # type: ignore[arg-type]
        return next(
            (one.macro for one in config.reference if (one.system, one.measure) == (system, "ndcg@10")), None
        )

    # The averages of MIRACL's papers, to their digit.
    assert [
        macro("miracl-dev", system) for system in ("BM25", "mDPR (MS MARCO)", "BM25 + mDPR (MS MARCO)")
    ] == [pytest.approx(score, abs=0.0005) for score in (0.385, 0.421, 0.579)]
    assert macro("miracl-dev", "mE5-large") == 0.666
    # Without scores per language there is no average over other languages.
    assert macro("miracl-dev-16", "mE5-large") is None
    assert macro("miracl-dev", "mE5-large", languages=["de"]) is None
    assert macro("miracl-dev", "BM25", languages=["de,yo"]) == round((0.2262 + 0.4059) / 2, 4)
    # 16 languages have a score: the average is theirs, and none of the 18.
    in_language = "mDPR (MS MARCO, then MIRACL, one model a language)"
    assert macro("miracl-dev", in_language) is None
    assert macro("miracl-dev-16", in_language) == pytest.approx(0.6271)


def test_missing_files_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError) as caught:
        check_data(load_config("belebele", data=str(tmp_path)))
    message = str(caught.value)
    assert message.startswith(
        f"path:{tmp_path}/belebele: no such folder, expected the benchmark's files there"
    )
    assert "--data DIR" in message
    assert "\n" not in message
    with pytest.raises(DataError, match="`mimo data debian --output DIR` makes DIR/test"):
        check_data(load_config("debian", data=str(tmp_path)))
    (tmp_path / "belebele").mkdir()
    monkeypatch.setenv("MIMO_DATA", str(tmp_path))
    config = load_config("belebele")
    assert config.collections == (f"path:{tmp_path}/belebele",)
    check_data(config)


def test_data_of_the_hub() -> None:
    config = load_config("xquad", data="hub:owner/benchmarks@v1")
    assert config.collections == ("hub:owner/benchmarks@v1/xquad",)
    check_data(config)
