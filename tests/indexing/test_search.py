"""From an index to a run, by us and by Pyserini."""

import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.collections.pool import load
from mimo_plugin.core.errors import ArtifactError, DataError, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.indexing.build import index as build_index
from mimo_plugin.indexing.nearest import Lines
from mimo_plugin.indexing.open import Index, IndexManifest, IndexPlan, open_index
from mimo_plugin.indexing.plan import foreign_plan
from mimo_plugin.indexing.search import find_hits, read_topics, search_to_run
from mimo_plugin.indexing.settings import IndexOptions, Part, SearchOptions

QUERIES = [
    {"_id": "q1", "text": "Suche Sprache", "lang": "de"},
    {"_id": "q2", "text": "haku kieli", "lang": "fi"},
    {"_id": "q3", "text": "検索 言語", "lang": "ja"},
    {"_id": "q4", "text": " ", "lang": "ja"},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = documents(60)
    # Four equal documents: their scores tie.
    for number in (5, 15, 25, 35):
        rows[number] |= {"title": "", "text": "Suche Sprache"}
    return write_folder(tmp_path_factory.mktemp("folder"), rows, QUERIES, {"q1": {"d5": 1}})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, spec: str) -> Path:
    output = tmp_path_factory.mktemp("index") / "index"
    options = IndexOptions(shard_size=7, progress=False)
    build_index([spec], Encoder(str(checkpoint)), output, options)
    return output


def run_of(index: Path, spec: str, output: Path, **options: object) -> dict[str, list[tuple[str, int, str]]]:
    search_to_run(index, [spec], output, SearchOptions(**{"progress": False, **options}))
    found: dict[str, list[tuple[str, int, str]]] = {}
    for line in output.read_text(encoding="utf-8").splitlines():
        query, q0, docid, rank, score, tag = line.split(" ")
        assert (q0, tag) == ("Q0", options.get("tag", "mimo"))
        found.setdefault(query, []).append((docid, int(rank), score))
    return found


@pytest.mark.threads
def test_run_is_exact_and_in_trec_evals_order(
    index: Path, spec: str, checkpoint: Path, tmp_path: Path
) -> None:
    run = run_of(index, spec, tmp_path / "run.trec", hits=60, tag="tiny")
    student = Encoder(str(checkpoint))
    vectors = faiss.read_index(str(index / "index")).reconstruct_n(0, 60)
    assert list(run) == ["q1", "q2", "q3", "q4"]
    for query in QUERIES:
        hits = run[query["_id"]]
        expected = vectors @ student.encode_queries([query["text"]])[0]
        assert [rank for _, rank, _ in hits] == list(range(1, 61))
        for docid, _, score in hits:
            assert abs(float(score) - expected[int(docid[1:])]) <= 1e-6
        keys = [(float(np.float32(score)), docid.encode()) for docid, _, score in hits]
        assert keys == sorted(keys, reverse=True)
    tied = [docid for docid, _, score in run["q1"] if score == run["q1"][0][2]]
    assert tied[:4] == ["d5", "d35", "d25", "d15"]


def test_metadata_stand_before_the_hits(index: Path, spec: str, checkpoint: Path, tmp_path: Path) -> None:
    run, told = tmp_path / "run.trec", tmp_path / "told.trec"
    run_of(index, spec, run, hits=5)
    search_to_run(index, [spec], told, SearchOptions(hits=5, progress=False), metadata={"tag": "mine"})
    header, _, hits = told.read_text(encoding="utf-8").partition("# ir_metadata.end\n")
    assert hits == run.read_text(encoding="utf-8")
    for line in ("# tag: mine", "method: faiss.IndexFlatIP", f"encoder: {checkpoint}", f"name: {spec}"):
        assert f"{line}\n" in header


def test_scores_make_no_ties(index: Path, spec: str, tmp_path: Path) -> None:
    opened = open_index(index)
    student = Encoder(opened.manifest.plan.encoder)
    run = run_of(index, spec, tmp_path / "run.trec", hits=60)
    queries = [(row["_id"], row["text"]) for row in QUERIES]
    for query, _, scores in find_hits([opened], student, queries, hits=60):
        assert sorted(np.float32(score) for _, _, score in run[query]) == sorted(scores)


@pytest.mark.threads
def test_pyserini_finds_the_same(index: Path, spec: str, checkpoint: Path, tmp_path: Path) -> None:
    import mimo_plugin

    mimo_plugin.register()
    from pyserini.search.faiss import FaissSearcher

    run = run_of(index, spec, tmp_path / "run.trec", hits=10)
    searcher = FaissSearcher(str(index), mimo_plugin.MimoQueryEncoder(str(checkpoint), device="cpu"))
    texts, ids = [row["text"] for row in QUERIES], [row["_id"] for row in QUERIES]
    batch = searcher.batch_search(texts, ids, k=10, threads=2)
    for text, query in zip(texts, ids, strict=True):
        ours = {docid: float(score) for docid, _, score in run[query]}
        for hits in (searcher.search(text, k=10), batch[query]):
            assert np.allclose(sorted(hit.score for hit in hits), sorted(ours.values()), atol=1e-6)
            worst = min(ours.values())
            clear = {hit.docid for hit in hits if hit.score > worst + 1e-6}
            assert clear <= set(ours)


def test_stock_search_command_reads_the_index(
    index: Path, spec: str, checkpoint: Path, tmp_path: Path
) -> None:
    from mimo_plugin.pyserini.commands import run_module

    run = run_of(index, spec, tmp_path / "run.trec", hits=5)
    topics, output = tmp_path / "topics.tsv", tmp_path / "stock.trec"
    topics.write_text("".join(f"{row['_id']}\t{row['text']}\n" for row in QUERIES[:3]), encoding="utf-8")
    common = ["--index", str(index), "--topics", str(topics), "--encoder", str(checkpoint), "--hits", "5"]
    for extra in (["--encoder-class", "mimo"], ["--encoder-class", "auto", "--pooling", "mean", "--l2-norm"]):
        run_module("search.faiss", [*common, "--output", str(output), *extra])
        lines = [line.split() for line in output.read_text(encoding="utf-8").splitlines()]
        assert len(lines) == 15
        for query in ("q1", "q2", "q3"):
            stock = sorted(float(columns[4]) for columns in lines if columns[0] == query)
            assert np.allclose(stock, sorted(float(score) for _, _, score in run[query]), atol=2e-6)


def test_stock_commands_that_do_not_exist() -> None:
    from mimo_plugin.pyserini.commands import run_module

    for name in ("serch.faiss", "search.faiss.nothing"):
        with pytest.raises(UsageError, match="is not a module of Pyserini"):
            run_module(name, [])


def test_other_encoders_are_refused(index: Path, spec: str, checkpoint: Path, tmp_path: Path) -> None:
    other = str(plain_xlmr(tmp_path / "other", seed=1))
    output = tmp_path / "run.trec"
    options = SearchOptions(encoder=other, progress=False)
    with pytest.raises(ArtifactError, match="is not the encoder of .* --allow-other-encoder"):
        search_to_run(index, [spec], output, options)
    assert not output.exists()
    search_to_run(index, [spec], output, replace(options, allow_other_encoder=True))
    wide = str(plain_xlmr(tmp_path / "wide", hidden=48))
    with pytest.raises(ArtifactError, match="gives 48 dimensions, the vectors in .* have 32"):
        search_to_run(index, [spec], output, replace(options, encoder=wide, allow_other_encoder=True))


def test_overrides_of_the_index_hold_for_queries(spec: str, checkpoint: Path, tmp_path: Path) -> None:
    student = Encoder(str(checkpoint), EncoderOptions(pooling="cls", normalize=False))
    build_index([spec], student, tmp_path / "index", IndexOptions(progress=False))
    run = run_of(tmp_path / "index", spec, tmp_path / "run.trec", hits=1)
    assert float(run["q1"][0][2]) == pytest.approx(
        float(np.square(student.encode_queries(["Suche Sprache"])).sum())
    )


def test_topics_are_checked(index: Path, tmp_path: Path) -> None:
    again = [*QUERIES[:2], QUERIES[0], {**QUERIES[0], "text": "anders"}]
    twice = write_folder(tmp_path / "twice", documents(3), again, {"q1": {"d1": 1}})
    with pytest.raises(DataError, match="query id q1 occurs twice"):
        read_topics(load(twice))
    none = write_folder(tmp_path / "none", documents(3))
    with pytest.raises(DataError, match="none has no queries"):
        search_to_run(index, [none], tmp_path / "run.trec", SearchOptions(progress=False))


def test_what_a_user_should_know(index: Path, spec: str, tmp_path: Path) -> None:
    found = search_to_run(index, [spec], tmp_path / "run.trec", SearchOptions(hits=100, progress=False))
    assert (found.queries, found.lines) == (4, 240)
    assert "1 queries have no text and were searched like the others: q4" in found.warnings
    assert "--hits 100: the index holds 60 documents" in found.warnings
    assert len(found.warnings) == 2


def test_damage_is_found_on_opening(index: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    ids = (copy / "docid").read_bytes()
    (copy / "docid").write_bytes(ids.replace(b"\n", b" ", 1))
    with pytest.raises(ArtifactError, match="docid does not have the SHA-256 that the manifest says"):
        open_index(copy)
    (copy / "docid").write_bytes(ids)
    (copy / "index").write_bytes(b"x" * manifest["files"]["index"]["bytes"])
    with pytest.raises(ArtifactError, match="index does not have the SHA-256 that the manifest says"):
        open_index(copy)


def test_a_changed_docid_is_found(index: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    ids = (copy / "docid").read_bytes()
    (copy / "docid").write_bytes(ids.replace(b"d1\n", b"d2\n", 1))
    with pytest.raises(ArtifactError, match="does not have the SHA-256 that the manifest says"):
        open_index(copy)


def test_output_that_is_a_directory_a_link_or_a_device(index: Path, spec: str, tmp_path: Path) -> None:
    options = SearchOptions(hits=1, progress=False)
    with pytest.raises(UsageError, match="is a directory"):
        search_to_run(index, [spec], tmp_path, options)
    target, link = tmp_path / "target.trec", tmp_path / "link.trec"
    target.write_text("old")
    link.symlink_to(target)
    search_to_run(index, [spec], link, options)
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 4
    search_to_run(index, [spec], Path("/dev/null"), options)
    assert Path("/dev/null").is_char_device()


@pytest.mark.threads
def test_search_parameters(spec: str, checkpoint: Path, index: Path, tmp_path: Path) -> None:
    student = Encoder(str(checkpoint))
    options = IndexOptions(factory="IVF2,Flat", shard_size=7, progress=False)
    build_index([spec], student, tmp_path / "ivf", options)
    assert open_index(tmp_path / "ivf", "nprobe=2").faiss.nprobe == 2
    narrow = SearchOptions(search_parameters="nprobe=1", progress=False)
    short = search_to_run(tmp_path / "ivf", [spec], tmp_path / "short.trec", narrow)
    assert any("queries got fewer than 60 hits" in warning for warning in short.warnings)
    flat = run_of(index, spec, tmp_path / "flat.trec", hits=60)
    ivf = run_of(tmp_path / "ivf", spec, tmp_path / "ivf.trec", hits=60, search_parameters="nprobe=2")
    assert flat == ivf
    with pytest.raises(UsageError, match="'nprobes=2' do not fit"):
        open_index(tmp_path / "ivf", "nprobes=2")


def test_lines_by_number(tmp_path: Path) -> None:
    lines = ["d1", "检索", "", "x" * 100]
    (tmp_path / "docid").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    table = Lines(tmp_path / "docid")
    assert [table[number] for number in range(len(table))] == lines
    assert table.take(np.array([3, 1, 1, 2])) == ["x" * 100, "检索", "检索", ""]
    assert table.take(np.array([], dtype=np.int64)) == []
    assert table.between(1, 3) == ["检索", ""]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, spec: str) -> list[Path]:
    """The same documents as `index` in three indexes, the last one first."""
    student = Encoder(str(checkpoint))
    outputs = []
    for number in (3, 1, 2):
        output = tmp_path_factory.mktemp("part") / "index"
        options = IndexOptions(shard=Part(number, 3), shard_size=7, progress=False)
        build_index([spec], student, output, options)
        outputs.append(output)
    return outputs


@pytest.mark.threads
@pytest.mark.parametrize("hits", [1, 2, 3, 5, 59, 60, 100])
def test_parts_are_searched_as_the_whole_bit_for_bit(
    index: Path, parts: list[Path], spec: str, tmp_path: Path, hits: int
) -> None:
    options = SearchOptions(hits=hits, progress=False)
    search_to_run(index, [spec], tmp_path / "whole.trec", options)
    found = search_to_run(parts, [spec], tmp_path / "parts.trec", options)
    assert (tmp_path / "parts.trec").read_bytes() == (tmp_path / "whole.trec").read_bytes()
    assert found.lines == 4 * min(hits, 60)
    if hits == 100:
        assert "--hits 100: the 3 indexes hold 60 documents" in found.warnings


class Encoded:
    """An encoder whose work is done: a query's text is the number of its vector."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        return self._vectors[[int(text) for text in texts]]


def opened(directory: Path, faiss_index: faiss.Index, docids: list[str]) -> Index:
    directory.mkdir()
    (directory / "docid").write_text("".join(f"{docid}\n" for docid in docids))
    plan = foreign_plan((), "", len(docids), faiss_index.d, len(docids))
    manifest = IndexManifest(
        plan=IndexPlan.of(plan, "", None, 0), languages={"": len(docids)}, empty_documents=None, files={}
    )
    return Index(directory, manifest, opened=(faiss_index, Lines(directory / "docid")))


@pytest.mark.threads
@pytest.mark.parametrize("factory", ["Flat", "SQfp16"])
def test_what_is_found_depends_on_the_vectors_alone(factory: str, tmp_path: Path) -> None:
    """Neither on how documents are spread over indexes, nor on which queries are searched together: matrix
    products of other shapes round otherwise, and the same vector occurs up to 400 times."""
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((3000, 96)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[500:620] = vectors[7]
    vectors[1000:1400] = vectors[8]
    queries = vectors[np.arange(0, 300, 1)] + 0.05 * generator.standard_normal((300, 96)).astype(np.float32)
    docids = [f"d{number}" for number in generator.permutation(3000)]
    asked = [(f"q{number}", str(number)) for number in range(300)]

    def some(name: str, start: int, stop: int) -> Index:
        made = faiss.index_factory(96, factory, faiss.METRIC_INNER_PRODUCT)
        made.add(vectors[start:stop])
        return opened(tmp_path / name, made, docids[start:stop])

    def run(indexes: list[Index], hits: int, batch_size: int) -> list[tuple[str, list[tuple[float, str]]]]:
        found = find_hits(indexes, Encoded(queries), asked, hits=hits, batch_size=batch_size)
        return [(query, sorted(zip(scores.tolist(), docids, strict=True))) for query, docids, scores in found]

    whole = [some("whole", 0, 3000)]
    three = [some("c", 1025, 3000), some("a", 0, 17), some("b", 17, 1025)]
    for hits in (10, 100):
        expected = run(whole, hits, 1024)
        assert [query for query, _ in expected] == [query for query, _ in asked]
        for batch_size in (1024, 299, 7):
            assert run(three, hits, batch_size) == expected
        assert run(whole, hits, 7) == expected
        # The documents are the best by score, then docid.
        exact = vectors.astype(np.float64) @ queries[8]
        score = max(value for value, _ in expected[8][1])
        assert score == pytest.approx(exact[8], abs=1e-3)
        best = sorted(
            (docid for row, docid in enumerate(docids) if row == 8 or 1000 <= row < 1400), reverse=True
        )
        assert sorted(docid for _, docid in expected[8][1]) == sorted(best[:hits])


@pytest.mark.threads
@pytest.mark.parametrize("block", [1 << 16, 700])
def test_a_tie_of_any_size_is_in_trec_evals_order(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More documents than FAISS is asked for share a score; those below, among and above them are right."""
    monkeypatch.setattr("mimo_plugin.indexing.nearest._BLOCK", block)
    generator = np.random.default_rng(5)
    vectors = generator.standard_normal((3000, 16)).astype(np.float32)
    vectors[200:2900] = vectors[0]
    queries = np.stack([vectors[0], vectors[0] + vectors[5] * 0.3, -vectors[0], vectors[0] * 0])
    docids = [f"d{number}" for number in generator.permutation(3000)]
    flat = faiss.IndexFlatIP(16)
    flat.add(vectors)
    whole = opened(tmp_path / "whole", flat, docids)
    parts = []
    for start, stop in ((1500, 3000), (0, 1500)):
        part = faiss.IndexFlatIP(16)
        part.add(vectors[start:stop])
        parts.append(opened(tmp_path / f"part{start}", part, docids[start:stop]))
    asked = [(f"q{number}", str(number)) for number in range(len(queries))]
    for indexes in ([whole], parts):
        cut: list[str] = []
        for hits in (1, 7, 30):
            for query, (_, found, scores) in zip(
                queries, find_hits(indexes, Encoded(queries), asked, hits=hits, cut=cut.append), strict=True
            ):
                exact = np.array([faiss_product(query, vector) for vector in vectors])
                order = sorted(range(3000), key=lambda row: (exact[row], docids[row].encode()), reverse=True)
                assert set(found) == {docids[row] for row in order[:hits]}
                assert sorted(scores.tolist(), reverse=True) == exact[order[:hits]].tolist()
        assert not cut


def faiss_product(query: np.ndarray, vector: np.ndarray) -> float:
    product = faiss.fvec_inner_product(faiss.swig_ptr(query), faiss.swig_ptr(vector), len(query))
    return float(np.float32(product))


def test_a_tie_that_an_approximate_index_cuts_is_told(checkpoint: Path, index: Path, tmp_path: Path) -> None:
    docs = [{"_id": f"d{number}", "text": "the same", "lang": "de"} for number in range(300)]
    same = f"path:{tmp_path / 'same'}"
    write_folder(tmp_path / "same", docs, [{"_id": "q", "text": "same", "lang": "de"}], {"q": {"d1": 1}})
    runs = {}
    for factory in ("Flat", "SQfp16"):
        build_index(
            [same],
            Encoder(str(checkpoint), EncoderOptions(device="cpu")),
            tmp_path / factory,
            IndexOptions(factory=factory, progress=False),
        )
        output = tmp_path / f"{factory}.trec"
        runs[factory] = search_to_run(
            tmp_path / factory, [same], output, SearchOptions(hits=2, progress=False)
        ).warnings
        if factory == "Flat":
            found = [line.split()[2] for line in output.read_text().splitlines()]
            assert found == ["d99", "d98"]
    assert runs["Flat"] == ()
    (warning,) = runs["SQfp16"]
    assert warning.startswith("1 queries (q) have more documents of equal score at the last hit")


def test_a_docid_in_two_indexes_is_named(index: Path, spec: str, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    with pytest.raises(
        ArtifactError, match=rf"docid 'd\d+' is in {index} and in {copy}, expected each document"
    ):
        search_to_run([index, copy], [spec], tmp_path / "run.trec", SearchOptions(progress=False))
    assert not (tmp_path / "run.trec").exists()
    with pytest.raises(ArtifactError, match="given 2 times, expected each index once"):
        search_to_run([index, index], [spec], tmp_path / "run.trec", SearchOptions(progress=False))


def test_indexes_that_do_not_go_together(
    index: Path, parts: list[Path], spec: str, checkpoint: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    student = Encoder(str(checkpoint), EncoderOptions(pooling="cls"))
    options = IndexOptions(progress=False)
    build_index([spec], student, other, options)
    with pytest.raises(ArtifactError) as caught:
        search_to_run([index, other, tmp_path / "none"], [spec], tmp_path / "run.trec")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "none: no such directory" in lines[0]
    assert f"{other} and {index} cannot be searched as one: encoder_fingerprint is" in lines[1]
    assert "pooling is 'cls' and None" in lines[2]
    pooled = tmp_path / "pooled"
    build_index([spec], Encoder(str(checkpoint)), pooled, options, pooled=True)
    with pytest.raises(ArtifactError, match="only one has ids as lang:id"):
        search_to_run([index, pooled], [spec], tmp_path / "run.trec")


def test_languages_in_indexes_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    rows = documents(40, languages=("de", "fi"))
    specs, directories = [], []
    student = Encoder(str(checkpoint))
    for lang, queries in (("de", QUERIES[:1]), ("fi", QUERIES[1:2])):
        mine = [row for row in rows if row["lang"] == lang]
        judged = {queries[0]["_id"]: {mine[0]["_id"]: 1}}
        specs.append(write_folder(tmp_path / lang, mine, queries, judged))
        directories.append(tmp_path / f"index-{lang}")
        build_index(specs[-1:], student, directories[-1], pooled=True, progress=False)
    build_index(specs, student, tmp_path / "together", progress=False)
    for place, name in ((directories, "apart.trec"), (tmp_path / "together", "together.trec")):
        search_to_run(place, specs, tmp_path / name, SearchOptions(hits=10, progress=False))
    apart, together = (
        [line.split()[:3] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("apart.trec", "together.trec")
    )
    assert {line[0] for line in apart} == {"de:q1", "fi:q2"}
    assert {line[2].partition(":")[0] for line in apart} == {"de", "fi"}
    # Vectors encoded in batches of other texts differ by rounding.
    assert len({tuple(line) for line in apart} & {tuple(line) for line in together}) >= 18


def test_queries_that_are_documents(index: Path, checkpoint: Path, tmp_path: Path) -> None:
    """As in ArguAna: the query's own document would be found first."""
    rows = documents(20)
    queries = [
        {"_id": f"d{number}", "text": f"{rows[number]['title']} {rows[number]['text']}".strip()}
        for number in range(8)
    ]
    spec = write_folder(tmp_path / "c", rows, [*queries, {"_id": "else", "text": "Wort"}], {"d0": {"d1": 1}})
    own = tmp_path / "index"
    build_index([spec], Encoder(str(checkpoint)), own, IndexOptions(progress=False))
    told = search_to_run(own, [spec], tmp_path / "with.trec", SearchOptions(hits=20, progress=False))
    (notice,) = (text for text in told.warnings if "--remove-query" in text)
    assert notice.startswith("the first hit of 8 of 9 queries has the query's own id")
    whole = run_of(own, spec, tmp_path / "with.trec", hits=20)
    for hits in (1, 7, 19, 20):
        options = SearchOptions(hits=hits, remove_query=True, progress=False)
        told = search_to_run(own, [spec], tmp_path / "without.trec", options)
        assert not any("--remove-query" in text or "approximate" in text for text in told.warnings)
        found = run_of(own, spec, tmp_path / "without.trec", hits=hits, remove_query=True)
        expected = {
            query: [docid for docid, _, _ in ranked if docid != query][:hits]
            for query, ranked in whole.items()
        }
        assert {query: [docid for docid, _, _ in ranked] for query, ranked in found.items()} == expected
        assert [rank for _, rank, _ in found["d3"]] == list(range(1, len(found["d3"]) + 1))

    # In a pool ids are compared with their prefix.
    pooled = tmp_path / "pooled"
    build_index(load(spec, pooled=True), Encoder(str(checkpoint)), pooled, progress=False)
    found = run_of(pooled, spec, tmp_path / "pooled.trec", remove_query=True)
    assert all(query != docid for query, ranked in found.items() for docid, _, _ in ranked)
    assert {query.split(":")[0] for query in found} == {"c"}


def test_no_notice_where_documents_with_the_ids_of_queries_are_relevant(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = documents(10)
    queries = [{"_id": row["_id"], "text": f"{row['title']} {row['text']}".strip()} for row in rows]
    spec = write_folder(tmp_path / "c", rows, queries, {"d0": {"d0": 1}})
    build_index([spec], Encoder(str(checkpoint)), tmp_path / "i", IndexOptions(progress=False))
    told = search_to_run(tmp_path / "i", [spec], tmp_path / "a.trec", SearchOptions(hits=5, progress=False))
    assert not any("--remove-query" in text for text in told.warnings)
