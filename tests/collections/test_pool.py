"""Several collections as one, through ir_datasets' real MIRACL and Mr. TyDi."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tiny_ir_datasets as tiny
from helpers.beir import write_folder
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.collections.dataset import collection
from mimo_plugin.collections.loading import open_collection, require
from mimo_plugin.collections.pool import collection_key, load, pool_prefixes
from mimo_plugin.collections.records import Doc, Query, pooled_id
from mimo_plugin.core.errors import DataError, UsageError

MIRACL = ["miracl/de/dev", "miracl/sw/dev"]


def test_one_collection_keeps_its_ids() -> None:
    source, pool = open_collection("miracl/de/dev"), load("miracl/de/dev")
    originals = list(source.docs_iter())
    docs = list(pool.docs_iter())
    assert docs == [Doc(doc.doc_id, doc.default_text(), "de") for doc in originals]
    assert sorted(doc.doc_id for doc in docs) == sorted(tiny.docids())
    assert list(pool.queries_iter()) == [Query(str(n), tiny.question("de", n), "de") for n in range(5)]
    assert list(pool.qrels_iter()) == list(source.qrels_iter())
    assert pool.docs_lang() == pool.queries_lang() == "de"


def test_one_collection_with_pooled_ids() -> None:
    pool = load("miracl/sw/dev", pooled=True)
    assert [doc.doc_id for doc in pool.docs_iter()] == [f"sw:{docid}" for docid in tiny.docids()]
    assert set(pool.queries_dict()) == {f"sw:{number}" for number in range(5)}
    assert set(pool.qrels_dict()) == set(pool.queries_dict())


def test_colliding_ids_become_different_and_stay_consistent() -> None:
    sources = [open_collection(spec) for spec in MIRACL]
    assert {doc.doc_id for doc in sources[0].docs_iter()} == {doc.doc_id for doc in sources[1].docs_iter()}
    pool = load(*MIRACL)
    docs = {doc.doc_id: doc for doc in pool.docs_iter()}
    assert len(docs) == 2 * len(tiny.docids())
    assert all(doc_id.startswith(f"{doc.lang}:") for doc_id, doc in docs.items())
    queries = pool.queries_dict()
    assert len(queries) == 10
    assert {query.lang for query in queries.values()} == {"de", "sw"}
    judged = pool.qrels_dict()
    assert set(judged) == set(queries)
    for query_id, relevances in judged.items():
        assert set(relevances) <= set(docs)
        assert {doc_id.split(":")[0] for doc_id in relevances} == {query_id.split(":")[0]}
        assert sorted(relevances.values()) == [0, 1]
    assert pool.docs_lang() is None


def test_splits_of_one_collection_bring_its_documents_once() -> None:
    pool = load("miracl/de/dev", "miracl/de/test-b", "miracl/sw/dev")
    assert sum(doc.lang == "de" for doc in pool.docs_iter()) == len(tiny.docids())
    assert set(pool.queries_dict()) == {f"de:{n}" for n in range(8)} | {f"sw:{n}" for n in range(5)}
    alone = load("miracl/de/dev", "miracl/de/test-b", pooled=False)
    assert set(alone.queries_dict()) == {str(n) for n in range(8)}


def test_shared_language_gives_way_to_the_collection_id(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "my lake", [{"_id": "1", "text": "See", "lang": "de"}])
    specs = ["miracl/de/dev", "mmarco/v2/de/dev", "mr-tydi/fi/dev", folder]
    assert list(pool_prefixes(specs).values()) == ["miracl/de", "mmarco/v2/de", "fi", "my_lake"]
    pool = load(*specs)
    ids = [doc.doc_id for doc in pool.docs_iter()]
    assert len(set(ids)) == len(ids) == 30 + 20 + 30 + 1
    assert {doc_id.split(":")[0] for doc_id in ids} == {"miracl/de", "mmarco/v2/de", "fi", "my_lake"}
    assert {qrel.doc_id for qrel in pool.qrels_iter()} <= set(ids)
    assert {qrel.query_id for qrel in pool.qrels_iter()} == set(pool.queries_dict())


def test_prefixes_do_not_depend_on_the_split() -> None:
    for splits in (["miracl/de", "mmarco/v2/de"], ["miracl/de/test-b", "mmarco/v2/de/dev/small"]):
        assert pool_prefixes(splits) == {"miracl/de": "miracl/de", "mmarco/v2/de": "mmarco/v2/de"}


def test_prefixes_of_an_index_hold_for_topics_that_are_named_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "de", [{"_id": "1", "text": "See"}], [{"_id": "q", "text": "See?"}])
    specs = ["miracl/de/dev", "mmarco/v2/de/dev", folder]
    prefixes = pool_prefixes(specs)
    assert prefixes == {
        "miracl/de": "miracl/de",
        "mmarco/v2/de": "mmarco/v2/de",
        str(tmp_path / "de"): "de",
    }
    assert [collection_key(spec) for spec in specs] == list(prefixes)
    docids = {doc.doc_id for doc in load(*specs).docs_iter()}
    for pooled in (None, True, False):
        alone = load("miracl/de/dev", pooled=pooled, prefixes=prefixes)
        assert {doc.doc_id for doc in alone.docs_iter()} < docids
        assert {qrel.doc_id for qrel in alone.qrels_iter()} < docids
        assert set(alone.queries_dict()) == {f"miracl/de:{n}" for n in range(5)}
    (tmp_path / "link").symlink_to(tmp_path / "de")
    linked = load(f"path:{tmp_path / 'link'}", prefixes=prefixes)
    assert [query.query_id for query in linked.queries_iter()] == ["de:q"]
    # a collection that the index does not have is named as ever
    other = load("miracl/sw/dev", pooled=True, prefixes=prefixes)
    assert next(other.queries_iter()).query_id == "sw:0"
    assert next(load("miracl/sw/dev", prefixes=prefixes).queries_iter()).query_id == "0"


def test_given_prefixes_may_collide_as_well() -> None:
    with pytest.raises(DataError, match="miracl/de and miracl/sw would both have ids that start with 'sw:'"):
        load("miracl/de", "miracl/sw", prefixes={"miracl/de": "sw"})
    with pytest.raises(DataError, match="miracl/de and miracl/sw would both have ids without a prefix"):
        load("miracl/de", "miracl/sw", prefixes={"miracl/de": "", "miracl/sw": ""})
    with pytest.raises(UsageError, match="without pooled ids"):
        load("miracl/de", "miracl/sw", pooled=False, prefixes={"miracl/de": "de"})


def test_a_collision_that_is_left_is_an_error(tmp_path: Path) -> None:
    docs = [{"_id": "1", "text": "See"}]
    one, two = write_folder(tmp_path / "a" / "lake", docs), write_folder(tmp_path / "b" / "lake", docs)
    with pytest.raises(
        DataError, match=r"a/lake and path:.*b/lake would both have ids that start with 'lake:'"
    ):
        load(one, two)
    named = write_folder(tmp_path / "de", docs)
    with pytest.raises(DataError, match="would both have ids that start with 'de:'"):
        load("miracl/de", named)


def test_multilingual_collection_in_a_pool_keeps_its_own_languages() -> None:
    pool = load("mimo-sample", "miracl/de/dev")
    docs = list(pool.docs_iter())
    assert {doc.doc_id.split(":")[0] for doc in docs} == {"mimo-sample", "de"}
    assert all(doc.doc_id.split(":")[1] == doc.lang for doc in docs if doc.doc_id.startswith("mimo-sample:"))


def test_fields() -> None:
    titles = load("miracl/de/dev", fields=["title"])
    assert {doc.text for doc in titles.docs_iter()} == {f"de {n}" for n in range(tiny.ARTICLES)}
    swapped = load("miracl/de/dev", fields=["text", "title"])
    assert next(swapped.docs_iter()).text == f"{tiny.passage('de', '0#0')} de 0"
    default = load("miracl/de/dev")
    assert next(default.docs_iter()).text == f"de 0 {tiny.passage('de', '0#0')}"


def test_empty_fields_are_left_out_and_empty_text_is_kept(tmp_path: Path) -> None:
    docs = [{"_id": "1", "text": "See"}, {"_id": "2", "title": "Haus", "text": ""}, {"_id": "3", "text": ""}]
    spec = write_folder(tmp_path / "x", docs)
    assert [doc.text for doc in load(spec, fields=["title", "text"]).docs_iter()] == [
        "See",
        "Haus",
        "",
    ]
    assert [doc.text for doc in load(spec).docs_iter()] == ["See", "Haus ", ""]


def test_unknown_fields_are_reported_for_every_collection() -> None:
    with pytest.raises(DataError) as caught:
        load("miracl/de/dev", "mr-tydi/fi/dev", "miracl/sw/dev", fields=["title", "body"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "miracl/de/dev: no field 'body', its documents have title, text"
    assert lines[1] == "mr-tydi/fi/dev: no field 'title', 'body', its documents have text"
    assert len(lines) == 3


def test_parts_are_there_when_one_collection_has_them() -> None:
    assert load("miracl/de", "miracl/sw/dev").has_qrels()
    assert not load("miracl/de/test-b").has_qrels()
    assert not load("miracl/de", "miracl/sw").has_queries()


def test_require_names_what_each_collection_lacks() -> None:
    require(MIRACL, docs=True, queries=True, qrels=True)
    with pytest.raises(DataError) as caught:
        require(["miracl/de/test-b", "miracl/sw", "miracl/nix"], queries=True, qrels=True)
    text = str(caught.value)
    assert "miracl/de/test-b has no qrels, expected a collection with qrels: miracl/de/dev" in text
    assert "miracl/sw has no queries" in text
    assert "miracl/sw has no qrels" in text
    assert "'miracl/nix': unknown collection" in text
    assert len(text.splitlines()) == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("miracl/sw", "miracl/sw/dev, miracl/sw/train"),
        ("mmarco/v2/de", "mmarco/v2/de/dev, mmarco/v2/de/dev/small, mmarco/v2/de/train"),
        ("miracl/de/test-b", "miracl/de/dev"),
    ],
)
def test_only_splits_of_the_same_collection_are_suggested(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        require([spec], qrels=True)
    assert str(caught.value) == f"{spec} has no qrels, expected a collection with qrels: {message}"


def test_unknown_collections_are_reported_together_with_near_matches() -> None:
    with pytest.raises(DataError) as caught:
        load("mirac/de/dev", "mimo-sampel", "miracl/de/dev")
    first, second = str(caught.value).splitlines()
    assert "'mirac/de/dev': unknown collection" in first
    assert "miracl/de/dev" in first
    assert "mimo-sample" in second
    with pytest.raises(DataError, match="near: miracl/de/dev"):
        open_collection("miracl/de/devel")
    with pytest.raises(DataError, match="expected one of miracl/ar, "):
        open_collection("miracl")
    with pytest.raises(DataError, match="`mimo collections` lists them"):
        open_collection("")


def test_folder_without_path_is_told_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"for the folder write path:{tmp_path}"):
        open_collection(str(tmp_path))


def test_wrong_calls() -> None:
    with pytest.raises(UsageError, match="at least one"):
        load()
    with pytest.raises(UsageError, match="2 collections without pooled ids"):
        load(*MIRACL, pooled=False)
    with pytest.raises(DataError, match="given twice"):
        load("miracl/de/dev", "miracl/de/dev")


def test_query_ids_that_occur_twice() -> None:
    """The very same one is taken once."""
    both = load("mr-tydi/fi", "mr-tydi/fi/dev", pooled=True)
    alone = [list(load(spec, pooled=True).queries_iter()) for spec in ("mr-tydi/fi", "mr-tydi/fi/dev")]
    assert list(both.queries_iter()) == list(dict.fromkeys([*alone[0], *alone[1]]))
    assert len(both.queries_handler().copies) == sum(map(len, alone)) - len({*alone[0], *alone[1]}) > 0


def test_query_ids_that_occur_twice_in_a_folder(tmp_path: Path) -> None:
    queries = [{"_id": "q1", "text": "a"}, {"_id": "q1", "text": "b"}]
    spec = write_folder(tmp_path / "x", [{"_id": "1", "text": "See"}], queries)
    with pytest.raises(DataError, match=rf"query id q1 occurs twice, in {spec}, with another text: expected"):
        list(load(spec).queries_iter())
    assert list(load(spec, duplicates="first").queries_iter()) == [Query("q1", "a", "")]


def test_lookup_in_a_pool() -> None:
    pool = load("mimo-sample/de", "mimo-sample/fr")
    docs = list(pool.docs_iter())
    store = pool.docs_store()
    wanted = {doc.doc_id: doc for doc in (docs[0], docs[-1])}
    assert store.get_many([*wanted, "de:none", "none"]) == wanted
    assert pool.docs_iter()[0] == docs[0]
    assert list(pool.docs_iter()[:2]) == docs[:2]


def test_importing_the_package_does_not_import_ir_datasets() -> None:
    program = (
        "import sys, mimo_plugin.collections, mimo_plugin.cli.tools\n"
        "print(sorted({'ir_datasets', 'numpy', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_id_is_found_out_without_anything_heavy() -> None:
    program = (
        "import sys\n"
        "from mimo_plugin.cli import main\n"
        "main(['index', 'mircal/sw/dev', '--encoder', 'packaged:all-MiniLM-L6-v2', '--output', '/none'])\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'faiss', 'pandas', 'pyarrow', 'scipy',"
        " 'datasets', 'requests', 'huggingface_hub', 'ranx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    message = done.stderr.splitlines()[0]
    assert message.startswith("mimo: 'mircal/sw/dev': unknown collection, expected")
    assert message.endswith("near: miracl/sw/dev, miracl/es/dev, miracl/zh/dev")
    assert done.stdout == "[]\n"


_PREFIXES = st.text(
    st.characters(exclude_characters=":", exclude_categories=["Z", "C"]), min_size=1, max_size=4
)
_IDS = st.text(min_size=1, max_size=6)


@given(one=st.tuples(_PREFIXES, _IDS), two=st.tuples(_PREFIXES, _IDS))
def test_pooled_ids_are_the_same_only_for_the_same_document(
    one: tuple[str, str], two: tuple[str, str]
) -> None:
    assert (pooled_id(*one) == pooled_id(*two)) == (one == two)


@given(languages=st.lists(st.sampled_from(["", "de", "fi", "sw"]), min_size=2, max_size=6))
def test_prefixes_are_distinct_and_the_language_where_it_is_alone(languages: list[str]) -> None:
    collections = [collection(docs=[str(number)], lang=lang) for number, lang in enumerate(languages)]
    prefixes = load(*collections).prefixes
    assert prefixes is not None
    assert len(set(prefixes.values())) == len(languages)
    for lang, own in zip(languages, collections, strict=True):
        alone = bool(lang) and languages.count(lang) == 1
        assert prefixes[own.specs[0]] == (lang if alone else own.specs[0].replace(":", "-"))
