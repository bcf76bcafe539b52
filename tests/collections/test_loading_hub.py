"""Folders of a hub dataset, read from a cache in the hub's own layout; there is no network."""

from pathlib import Path

import pytest
from helpers.beir import write_folder
from helpers.tiny_mteb import write_mteb
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.collections.loading import _fetched, found_folder, parse_hub, require
from mimo_plugin.collections.pool import collection_key, load, pool_prefixes
from mimo_plugin.core.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds two folders of `owner/benchmarks`."""
    from huggingface_hub import constants

    repository = tmp_path / "datasets--owner--benchmarks"
    for lang in ("de", "fi"):
        directory = repository / "snapshots" / COMMIT / "mlir" / lang
        docs = [{"_id": "1", "text": "See", "lang": lang}]
        write_folder(directory, docs, [{"_id": "q", "text": "See?", "lang": lang}], {"q": {"1": 1}})
    for ref in ("main", "v1"):
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(COMMIT, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    _fetched.cache_clear()
    return tmp_path


@pytest.mark.usefixtures("cache")
def test_a_folder_is_a_collection() -> None:
    specs = ["hub:owner/benchmarks/mlir/de", "hub:owner/benchmarks@v1/mlir/fi#test"]
    require(specs, docs=True, queries=True, qrels=True)
    pool = load(*specs)
    assert [doc.doc_id for doc in pool.docs_iter()] == ["de:1", "fi:1"]
    assert [query.query_id for query in pool.queries_iter()] == ["de:q", "fi:q"]
    assert {(qrel.query_id, qrel.doc_id) for qrel in pool.qrels_iter()} == {
        ("de:q", "de:1"),
        ("fi:q", "fi:1"),
    }
    assert pool_prefixes(specs) == {
        "hub:owner/benchmarks/mlir/de": "de",
        "hub:owner/benchmarks@v1/mlir/fi": "fi",
    }
    assert collection_key(specs[1]) == "hub:owner/benchmarks@v1/mlir/fi"


@pytest.mark.usefixtures("cache")
def test_what_is_not_in_the_cache_is_said_without_a_network() -> None:
    with pytest.raises(DataError) as caught:
        load("hub:owner/benchmarks/mlir/sv", "hub:owner/other@v2/x", "hub:owner/benchmarks/mlir/de#dev")
    first, second, third = str(caught.value).splitlines()
    assert first == (
        "hub:owner/benchmarks/mlir/sv: not in the local cache, and HF_HUB_OFFLINE is set: download it on "
        "a machine with a network (hf download --repo-type dataset owner/benchmarks --include 'mlir/sv/*') "
        "and give its folder as path:DIR"
    )
    assert "owner/other --revision v2)" in second
    assert "no such split" in third


@pytest.mark.parametrize("spec", ["hub:", "hub:owner", "hub:owner/", "hub:a/b/../c", "hub:a/b@", "hub:a b/c"])
def test_other_forms(spec: str) -> None:
    with pytest.raises(DataError, match="expected hub:OWNER/NAME"):
        parse_hub(spec)


@given(spec=st.text(max_size=20).map("hub:{}".format))
def test_any_text_is_a_spec_or_an_error(spec: str) -> None:
    try:
        hub = parse_hub(spec)
    except DataError:
        return
    assert hub.repository.count("/") == 1
    assert ".." not in Path(hub.folder).parts


def _hub_folder(cache: Path, name: str) -> None:
    directory = cache / "datasets--owner--benchmarks" / "snapshots" / COMMIT / name
    docs = [{"_id": name, "text": "See", "lang": "de"}]
    write_folder(directory, docs, [{"_id": "q", "text": "See?", "lang": "de"}], {"q": {name: 1}})


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["MMLIR/Belebele_test", "MLIR-en/Belebele_test", "MMLIR/XQuAD_test"], "MMLIR/Belebele_test"),
        (["any/belebele-test", "any/belebele_dev"], "any/belebele-test"),
        (["Belebele", "MMLIR/Belebele_test"], "Belebele"),
        (["belebele", "Belebele_test"], "belebele"),
        (["some/folder/Belebele_test", "MMLIR/NotBelebele_test"], None),
        (["MLIR-en/Belebele_test", "MLIR-de/Belebele_test"], None),
    ],
)
def test_a_folder_by_the_name_of_its_release(there: list[str], expected: str | None, cache: Path) -> None:
    for name in there:
        _hub_folder(cache, name)
    spec = "hub:owner/benchmarks/belebele"
    if expected is not None:
        assert found_folder(spec) == expected
        assert [doc.doc_id for doc in load(spec).docs_iter()] == [expected]
        return
    with pytest.raises(DataError) as caught:
        load(spec)
    if "MLIR-de/Belebele_test" in there:
        assert (
            "2 folders have similar names (MLIR-de/Belebele_test, MLIR-en/Belebele_test), expected one"
            in str(caught.value)
        )
    else:
        assert "not in the local cache" in str(caught.value)


def test_a_language_of_a_repository_in_mtebs_layout(cache: Path) -> None:
    snapshot = cache / "datasets--owner--benchmarks" / "snapshots" / COMMIT
    for lang in ("rus", "zho"):
        write_mteb(snapshot, lang, "test")
    pool = load("hub:owner/benchmarks/rus", "hub:owner/benchmarks/zho")
    assert {doc.doc_id for doc in pool.docs_iter()} == {
        f"{lang}:{own}{n}" for n in range(3) for lang, own in (("ru", "rus"), ("zh", "zho"))
    }
