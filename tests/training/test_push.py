"""What `mimo push` would upload: the files of a checkpoint, and a card that the hub's own parser reads."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import huggingface_hub
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from helpers.report_samples import make_results
from helpers.training_runs import finished, unfinished
from training.test_record import CARD

import mimo_plugin as mimo
from mimo_plugin.cli import main
from mimo_plugin.core.errors import EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.training.record import save_student
from mimo_plugin.training.student import load_or_create

REPO = "me/student"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a card of `mimo train` and things that must stay here."""
    path = tmp_path_factory.mktemp("runs") / "run"
    finished(path)
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that `mimo train` saved."""
    root = tmp_path_factory.mktemp("student")
    base = sentence_transformer(
        root / "own", plain_xlmr(root / "base"), prompts={"query": "query: ", "document": "passage: "}
    )
    save_student(load_or_create(str(base), (), seed=1, device="cpu"), root / "model", card=CARD)
    return root / "model"


def scores(path: Path, *names: str) -> Path:
    """An evaluation in two languages, as `mimo evaluate --json` writes it."""
    docs = {f"{lang}{n}": {"text": f"{lang} {n}", "lang": lang} for lang in ("de", "fi") for n in range(3)}
    queries = {f"q{lang}": {"text": lang, "lang": lang} for lang in ("de", "fi")}
    qrels = {f"q{lang}": {f"{lang}0": 1} for lang in ("de", "fi")}
    hits = {"qde": {"de0": 2.0, "de1": 1.0}, "qfi": {"fi1": 2.0, "fi0": 1.0}}
    pool = mimo.collection(docs=docs, queries=queries, qrels=qrels)
    runs = {name: mimo.Run.of(hits, name) for name in names}
    mimo.evaluate(runs, pool, measures=["ndcg@10"]).save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "collections": ["miracl/de/dev", "miracl/fi/dev"]}))
    return path


def metadata(text: str) -> huggingface_hub.ModelCardData:
    """By the hub's own parser, which raises for results that it does not understand."""
    return huggingface_hub.ModelCard(text).data


def test_only_files_of_the_checkpoint_go(student: Path, tmp_path: Path) -> None:
    place = shutil.copytree(student, tmp_path / "student")
    others = [
        "optimizer.pt",
        "trainer_state.json",
        "rng_state.pth",
        ".env",
        "token.json",
        "a.py",
        "model.bin",
    ]
    others += ["checkpoints/checkpoint-1/model.safetensors", ".git/config.json"]
    for name in others:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x")
    output = tmp_path / "would"
    pushed = mimo.push(place, REPO, dry_run=str(output))
    there = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    assert pushed.files == {name: path.stat().st_size for name, path in there.items()}
    before = {path.relative_to(student).as_posix() for path in student.rglob("*") if path.is_file()}
    assert set(there) == before
    assert set(pushed.left_out) == set(others)
    assert all(name in str(pushed) for name in (*others, "model.safetensors"))
    assert pushed.url is None
    # It is the same model.
    assert Encoder(str(output)).fingerprint == Encoder(str(student)).fingerprint
    with pytest.raises(UsageError, match="would exists, expected the name of a new directory"):
        mimo.push(place, REPO, dry_run=str(output))


def test_the_card_is_the_students_own_under_the_new_name(student: Path) -> None:
    before = (student / "README.md").read_text()
    pushed = mimo.push(student, REPO, license="mit", dry_run="")
    assert (student / "README.md").read_text() == before
    assert pushed.files["README.md"] == len(pushed.card.encode())
    assert not pushed.warnings
    said = metadata(pushed.card)
    assert said.license == "mit"
    assert said.base_model == "FacebookAI/xlm-roberta-base"
    assert said.language == ["de", "en"]
    assert said.library_name == "sentence-transformers"
    assert said.pipeline_tag == "sentence-similarity"
    assert {"mimo", "feature-extraction", "pyserini"} <= set(said.tags)
    assert 'SentenceTransformer("me/student")' in pushed.card
    assert "# me/student\n" in pushed.card
    assert "mimo index path:my-collection --encoder me/student --output" in pushed.card
    assert "arxiv.org/abs/2605.31171" in pushed.card
    # What a user has changed stays.
    assert pushed.card.count("\n") >= before.count("\n")


def test_a_stage_inherits_what_the_one_before_says(student: Path, tmp_path: Path) -> None:
    first = huggingface_hub.ModelCard((student / "README.md").read_text())
    first.data.license, first.data.datasets = "mit", ["owner/pairs"]
    start = shutil.copytree(student, tmp_path / "first")
    (start / "README.md").write_text(str(first))
    recipe = {**CARD.recipe, "student": {"checkpoint": str(start)}}
    mmarco = {"collections": {"fi": "mmarco/v2/fi/train", "pt_BR": "mmarco/v2/pt/train"}}
    data = {"languages": {"fi": 3, "pt_BR": 4}, "source": mmarco}
    model = load_or_create(str(start), (), seed=1, device="cpu")
    save_student(model, tmp_path / "model", card=type(CARD)(recipe, data))
    said = metadata((tmp_path / "model" / "README.md").read_text())
    assert (said.license, said.base_model) == ("mit", "FacebookAI/xlm-roberta-base")
    assert said.language == ["de", "en", "fi", "pt"]
    assert said.datasets == ["owner/pairs", "unicamp-dl/mmarco"]


def test_packaged_models_have_their_names_on_the_hub(student: Path, tmp_path: Path) -> None:
    recipe = {**CARD.recipe, "student": {"checkpoint": "packaged:multilingual-e5-small"}}
    model = load_or_create(str(student), (), seed=1, device="cpu")
    save_student(model, tmp_path / "model", card=type(CARD)(recipe))
    text = (tmp_path / "model" / "README.md").read_text()
    said = metadata(text)
    assert (said.license, said.base_model) == ("mit", "intfloat/multilingual-e5-small")
    assert "Base: `intfloat/multilingual-e5-small`. Trained with" in text
    assert "Teacher: `sentence-transformers/all-MiniLM-L6-v2`;" in text


def test_scores_become_the_models_index(student: Path, tmp_path: Path) -> None:
    one = scores(tmp_path / "one.json", "e5")
    two = scores(tmp_path / "two.json", "mimo", "bm25")
    card = mimo.push(student, REPO, results=[str(one), f"mimo={two}"], dry_run="").card
    said = metadata(card)
    assert said.model_name == "student"
    assert said.eval_results is not None
    assert len(said.eval_results) == 6
    # The hub's parser groups them by collection and language.
    assert sorted((one.dataset_config, one.metric_value) for one in said.eval_results) == [
        *[("de", 1.0)] * 2,
        *[("fi", 0.63093)] * 2,
        *[("macro average", 0.81546)] * 2,
    ]
    first = said.eval_results[0]
    assert (first.dataset_type, first.dataset_name) == ("miracl/miracl", "miracl/de/dev, miracl/fi/dev")
    assert (first.metric_type, first.metric_name) == ("ndcg_at_10", "ndcg@10")
    assert "| miracl/de/dev, miracl/fi/dev | fi | ndcg@10 | 0.6309 |" in card
    with pytest.raises(UsageError, match=r"two.json has the runs mimo, bm25: name the student's"):
        mimo.push(student, REPO, results=[str(two)], dry_run="")
    with pytest.raises(UsageError, match="two.json has no run 'mine', expected one of mimo, bm25"):
        mimo.push(student, REPO, results=[f"mine={two}"], dry_run="")


def test_results_of_a_benchmark_know_the_student(student: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    content = make_results(["de", "fi"], measures="ndcg@10", skipped=True)
    file.write_text(json.dumps(content))
    for spec, name in ((str(file), "no system"), (f"xlco={file}", "xlco")):
        with pytest.raises(UsageError, match=rf"{name} in .* is another model than .* by its fingerprint"):
            mimo.push(student, REPO, results=[spec], dry_run="")
    content["systems"]["mimo"]["fingerprint"] = Encoder(str(student)).fingerprint
    file.write_text(json.dumps(content))
    said = metadata(mimo.push(student, REPO, results=[str(file)], dry_run="").card)
    scores = content["evaluation"]["runs"]["mimo"]
    assert said.eval_results is not None
    assert {one.dataset_config: one.metric_value for one in said.eval_results} == {
        "macro average": round(scores["macro"]["ndcg@10"], 5),
        "de": round(scores["per_language"]["de"]["ndcg@10"], 5),
        "fi": round(scores["per_language"]["fi"]["ndcg@10"], 5),
    }
    assert {one.dataset_name for one in said.eval_results} == {"Debian's package descriptions"}


def test_any_sentence_transformers_directory(tmp_path: Path) -> None:
    place = sentence_transformer(tmp_path / "own", plain_xlmr(tmp_path / "base"))
    (place / "README.md").unlink()
    pushed = mimo.push(place, REPO, dry_run="")
    assert 'SentenceTransformer("me/student")' in pushed.card
    assert "32 dimensions" in pushed.card
    assert "arXiv" not in pushed.card
    assert any("names no licence" in warning for warning in pushed.warnings)
    assert metadata(pushed.card).library_name == "sentence-transformers"


def test_a_run_is_checked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (run, run / "model"):
        assert main(["push", str(place), REPO, "--dry-run"]) == 0
        told = capsys.readouterr()
        assert "me/student: would be uploaded" in told.out
        assert "  model.safetensors\n" in told.out
        assert "mimo: warning: the card names no licence" in told.err
    begun = unfinished(tmp_path / "begun", {5: True})
    shutil.copytree(run / "model", begun / "model")
    for place in (begun, begun / "model"):
        assert main(["push", str(place), "student", "--dry-run"]) == 1
        told = capsys.readouterr().err
        assert "has no manifest.json, expected a training run" in told
        assert "'student' names no owner, expected OWNER/NAME" in told
    damaged = shutil.copytree(run, tmp_path / "damaged")
    weights = damaged / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["push", str(damaged), REPO, "--dry-run"]) == 1
    assert "SHA-256" in capsys.readouterr().err
    (tmp_path / "both").mkdir()
    shutil.copytree(run, tmp_path / "both" / "stage2")
    assert main(["push", str(tmp_path / "both"), REPO, "--dry-run"]) == 2
    assert "holds the runs of two stages" in capsys.readouterr().err


@pytest.mark.parametrize("token", [None, "hf_made_up"])
def test_without_token_or_network(
    student: Path, token: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token or "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(EnvironmentProblem) as caught:
        mimo.push(student, REPO, license="mit")
    assert ("there is no token of the hub" in str(caught.value)) == (token is None)
    assert "nothing can be uploaded: HF_HUB_OFFLINE is set" in str(caught.value)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as an upload of small files needs."""

    asked: ClassVar[list[str]] = []
    files: ClassVar[dict[str, bytes]] = {}
    made: ClassVar[dict[str, Any]] = {}
    refused: ClassVar[str | None] = None

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"name": "me", "type": "user"})

    def do_POST(self) -> None:
        lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        body = [json.loads(line) for line in lines]
        url = f"http://{self.headers['Host']}/{REPO}"
        answer: dict[str, Any] = {"url": url, "commitUrl": f"{url}/commit/1"}
        if self.path.endswith("/create"):
            Hub.made = body[0]
        elif "/preupload/" in self.path:
            sent = [{"path": file["path"], "uploadMode": "regular"} for file in body[0]["files"]]
            answer["files"] = [{**file, "shouldIgnore": False, "oid": None} for file in sent]
        elif "/commit/" in self.path:
            added = [line["value"] for line in body if line["key"] == "file"]
            Hub.files |= {one["path"]: base64.b64decode(one["content"]) for one in added}
            answer["commitOid"] = "1"
        self._answer(answer)

    def _answer(self, content: dict[str, Any]) -> None:
        Hub.asked.append(self.path)
        data = json.dumps(content).encode()
        self.send_response(403 if Hub.refused and re.search(Hub.refused, self.path) else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, socket_enabled: None) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    for name, value in (("ENDPOINT", f"http://127.0.0.1:{server.server_port}"), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    Hub.asked, Hub.files, Hub.made, Hub.refused = [], {}, {}, None
    yield Hub
    server.shutdown()
    server.server_close()


def test_an_upload_is_one_commit_of_what_a_dry_run_shows(
    student: Path, tmp_path: Path, hub: type[Hub]
) -> None:
    place = shutil.copytree(student, tmp_path / "student")
    (place / ".env").write_text("SECRET=1")
    said = mimo.push(place, REPO, license="mit", dry_run="")
    assert hub.asked == []
    pushed = mimo.push(place, REPO, license="mit", private=True, revision="next")
    # Releases of the client differ in how they say it.
    assert hub.made.get("private") or hub.made.get("visibility") == "private"
    assert [path for path in hub.asked if "/commit/" in path] == ["/api/models/me/student/commit/next"]
    assert {name: len(content) for name, content in hub.files.items()} == pushed.files == said.files
    assert hub.files["README.md"].decode() == pushed.card == said.card
    assert hub.files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert pushed.url == f"{huggingface_hub.constants.ENDPOINT}/{REPO}/commit/1"


@pytest.mark.parametrize("refused", ["whoami", "create|models"])
def test_a_refusal_comes_before_anything_is_uploaded(student: Path, hub: type[Hub], refused: str) -> None:
    hub.refused = refused
    with pytest.raises(
        EnvironmentProblem, match=r"me/student: HfHubHTTPError: .*403.*; nothing was uploaded"
    ):
        mimo.push(student, REPO, license="mit")
    assert hub.files == {}


@pytest.mark.slow
def test_mteb_gives_the_same_vectors(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retrieval task of MTEB, with its own wrapper: prompts and scores are those of this package."""
    # MTEB makes it when it is imported.
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    mteb: Any = pytest.importorskip("mteb", reason="MTEB is not installed: pip install mteb")
    import numpy as np
    from mteb.types import PromptType

    class Tiny(mteb.abstasks.AbsTaskRetrieval):  # type: ignore[misc]
        metadata = mteb.TaskMetadata(
            name="Tiny",
            description="Texts of the tests.",
            dataset={"path": "none/tiny", "revision": "1"},
            type="Retrieval",
            eval_langs=["deu-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_: Any) -> None:
            self.corpus = {"test": {f"d{n}": {"text": text} for n, text in enumerate(TEXTS)}}
            self.queries = {"test": {"q0": "Suchmaschinen", "q1": "many languages"}}
            self.relevant_docs = {"test": {"q0": {"d0": 1}, "q1": {"d1": 1}}}
            self.data_loaded = True

    asked: dict[PromptType, Any] = {}
    encode = mteb.SentenceTransformerEncoderWrapper.encode

    def recorded(self: Any, inputs: Any, *, prompt_type: PromptType, **rest: Any) -> Any:
        vectors = encode(self, inputs, prompt_type=prompt_type, **rest)
        asked[prompt_type] = ([text for batch in inputs for text in batch["text"]], np.asarray(vectors))
        return vectors

    monkeypatch.setattr(mteb.SentenceTransformerEncoderWrapper, "encode", recorded)
    (task,) = mteb.get_tasks(tasks=["BelebeleRetrieval"])
    assert task.metadata.name == "BelebeleRetrieval"
    snippet = (student / "README.md").read_text().partition("import mteb\n")[2].partition("```")[0]
    for said, here in (
        ('"model"', repr(str(student))),
        ('mteb.get_tasks(tasks=["BelebeleRetrieval"])', "[Tiny()]"),
    ):
        assert said in snippet
        snippet = snippet.replace(said, here)
    names: dict[str, Any] = {"mteb": mteb, "Tiny": Tiny}
    exec(snippet, names)

    encoder = Encoder(str(student))
    assert encoder.query_prompt == "query: "
    for kind, encoded in (
        (PromptType.query, encoder.encode_queries),
        (PromptType.document, encoder.encode_documents),
    ):
        texts, vectors = asked[kind]
        assert np.abs(vectors - encoded(texts)).max() <= 1e-5
        # A vector without the prompt is another one.
        assert np.abs(vectors - encoded(texts, prompt="")).max() > 1e-3
    queries, documents = (asked[kind][1] for kind in (PromptType.query, PromptType.document))
    ranks = (queries @ documents.T).argsort(axis=1)[:, ::-1]
    expected = np.mean([1 / np.log2(2 + list(ranks[n]).index(n)) for n in (0, 1)])
    (found,) = names["result"].task_results
    assert abs(found.get_score() - expected) <= 1e-4
