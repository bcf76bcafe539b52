"""Smaller students: what is kept gives the same tokens and vectors as before."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_decoder, plain_xlmr, sentence_transformer
from helpers.tiny_training import World, same_weights, train_both
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mimo_plugin.cli import main
from mimo_plugin.core.errors import ArtifactError, ModelError, UsageError
from mimo_plugin.encoder.checkpoint import load_model
from mimo_plugin.encoder.fingerprint import fingerprint
from mimo_plugin.training.cut import Cut, cut_record, layers_kept
from mimo_plugin.training.models import StudentOptions
from mimo_plugin.training.recipe import Recipe
from mimo_plugin.training.record import save_student
from mimo_plugin.training.run import PROJECTION
from mimo_plugin.training.stages import train_stage1
from mimo_plugin.training.student import load_or_create

# What vocabularies are cut to, each token twice; the tokenizers below know more.
USED = [form.format(text) for form in ("{0}", "{0} {0}") for text in (*TEXTS[:2], TEXTS[4])]
PROMPTS = {"query": "Kielet: ", "document": ""}


def _bert(directory: Path) -> Path:
    """BERT with WordPiece, and more rows than tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    BertTokenizer(vocab=tokenizer.get_vocab(), model_max_length=64).save_pretrained(directory)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size() + 7,
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(directory)
    return directory


def _modernbert(directory: Path) -> Path:
    """ModernBERT with a BPE of bytes, whose special tokens come last."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens(["|||IP|||", "   "])
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    cls, sep, pad, mask = (tokenizer.token_to_id(f"[{name}]") for name in ("CLS", "SEP", "PAD", "MASK"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(directory)
    config = ModernBertConfig(
        vocab_size=mask + 5,
        hidden_size=32,
        num_hidden_layers=7,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        local_attention=8,
        pad_token_id=pad,
        bos_token_id=cls,
        cls_token_id=cls,
        eos_token_id=sep,
        sep_token_id=sep,
    )
    ModernBertModel(config).save_pretrained(directory)
    return directory


def _llama(directory: Path) -> Path:
    return plain_decoder(directory, pad_token="</s>")


KINDS = {"xlmr": plain_xlmr, "bert": _bert, "modernbert": _modernbert, "llama": _llama}


@dataclass(frozen=True)
class Case:
    """A checkpoint and what was cut from it, both with their directories."""

    whole: Path
    small: Path
    before: Any
    after: Any

    def tokens(self, text: str) -> tuple[list[str], list[str]]:
        models = (self.before, self.after)
        return tuple(one.tokenizer.convert_ids_to_tokens(one.tokenizer(text)["input_ids"]) for one in models)


def _cut(directory: Path, layers: int | None, vocabulary: Any, texts: list[str] = USED) -> Any:
    model = load_or_create(str(directory), (), seed=1, device="cpu")
    cut = Cut.of(model, "it", layers, vocabulary)
    assert cut is not None
    cut.apply(model, texts)
    return model


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    root, made = tmp_path_factory.mktemp("kinds"), {}
    for name, make in KINDS.items():
        torch.manual_seed(5)
        pooling = {"llama": "lasttoken", "modernbert": "cls"}.get(name, "mean")
        made[name] = sentence_transformer(
            root / name, make(root / f"plain-{name}"), pooling=pooling, prompts=PROMPTS
        )
    return made


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, checkpoints: dict[str, Path], tmp_path_factory: Any) -> Case:
    whole, small = checkpoints[request.param], tmp_path_factory.mktemp("small") / "model"
    save_student(_cut(whole, None, "used"), small)
    return Case(whole, small, *(load_model(str(path), "it", "cpu") for path in (whole, small)))


def test_kept_tokens_keep_their_order_and_their_rows(case: Case) -> None:
    before, after = (one.tokenizer.get_vocab() for one in (case.before, case.after))
    assert after.keys() < before.keys()
    assert sorted(after, key=after.__getitem__) == [
        token for token in sorted(before, key=before.__getitem__) if token in after
    ]
    rows, kept = (one.transformers_model.get_input_embeddings().weight for one in (case.before, case.after))
    assert len(kept) == len(after) == case.after.config.vocab_size
    assert all(kept[after[token]].equal(rows[before[token]]) for token in after)
    for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"):
        assert getattr(case.after.tokenizer, f"{name}_token") == getattr(
            case.before.tokenizer, f"{name}_token"
        )
        old, new = (getattr(one.config, f"{name}_token_id", None) for one in (case.before, case.after))
        if old is not None:
            assert [token for token in after if after[token] == new] == [
                t for t in before if before[t] == old
            ]
    assert cut_record(case.after) == {"of_tokens": len(before), "tokens": len(after), "vocabulary": "used"}


def test_modules_prompts_and_length_stay(case: Case) -> None:
    assert [type(module) for module in case.after] == [type(module) for module in case.before]
    assert case.after[1].pooling_mode == case.before[1].pooling_mode
    assert case.after.prompts == case.before.prompts == PROMPTS
    assert case.after.max_seq_length == case.before.max_seq_length == 48
    assert "".join(case.after.tokenizer.tokenize(PROMPTS["query"])) == "".join(
        case.before.tokenizer.tokenize(PROMPTS["query"])
    )


def test_plain_transformers_reads_it(case: Case) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    states = []
    for directory in (case.whole, case.small):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        inputs = tokenizer(USED[:3], padding=True, return_tensors="pt")
        with torch.no_grad():
            found = AutoModel.from_pretrained(directory).eval()(**inputs).last_hidden_state
        states.append((found * inputs["attention_mask"].unsqueeze(-1)).numpy())
    assert np.abs(states[0] - states[1]).max() <= 1e-6 * np.abs(states[0]).max()


_WORDS = sorted({*" ".join(TEXTS).split(), "zzz", "ß", "漢", "😀", "  ", "|||IP|||"})


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(_WORDS)
        | st.text(alphabet=sorted(set("".join(TEXTS))), max_size=6)
        | st.text(max_size=3),
        max_size=6,
    ).map(" ".join)
)
def test_texts_of_kept_tokens_are_read_as_before(case: Case, text: str) -> None:
    before, after = case.tokens(text)
    unknown = case.before.tokenizer.unk_token
    if set(before) <= case.after.tokenizer.get_vocab().keys():
        assert after == before
        vectors = [one.encode([text, "many languages"], prompt="") for one in (case.before, case.after)]
        assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6
    assert before.count(unknown) == after.count(unknown)


def test_every_kept_token_is_still_found(case: Case) -> None:
    """A token of a BPE needs the tokens that it is merged of."""
    whole, small = (one.tokenizer.backend_tokenizer for one in (case.before, case.after))
    text = " ".join(TEXTS)
    for token in small.get_vocab():
        for start in (text, token, f"a{token}"):
            tokens = whole.encode(start, add_special_tokens=False).tokens
            if set(tokens) <= small.get_vocab().keys():
                assert small.encode(start, add_special_tokens=False).tokens == tokens


@given(st.integers(1, 60).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, layers))))
def test_layers_are_spread_from_first_to_last(numbers: tuple[int, int]) -> None:
    layers, keep = numbers
    kept = layers_kept(layers, keep)
    assert len(kept) == keep
    assert kept[0] == 0
    assert keep == 1 or kept[-1] == layers - 1
    gaps = {later - earlier for earlier, later in pairwise(kept)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize(("kind", "keep"), [("xlmr", 1), ("bert", 3), ("modernbert", 4), ("modernbert", 1)])
def test_layers_that_are_kept_stay_what_they_are(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, keep: int
) -> None:
    expected = load_model(str(checkpoints[kind]), "it", "cpu")
    base = expected.transformers_model
    there = base.config.num_hidden_layers
    kept = layers_kept(there, keep)
    stack = base.layers if kind == "modernbert" else base.encoder.layer
    for number in sorted(set(range(there)) - set(kept), reverse=True):
        del stack[number]
    save_student(_cut(checkpoints[kind], keep, None), tmp_path / "small")
    found = load_model(str(tmp_path / "small"), "it", "cpu")
    assert (found.config.num_hidden_layers, cut_record(found)["layers"]) == (keep, kept)
    assert cut_record(found)["of_layers"] == there
    assert np.abs(found.encode(TEXTS) - expected.encode(TEXTS)).max() <= 1e-6
    if keep == 4:
        full, local = "full_attention", "sliding_attention"
        assert found.config.layer_types == [full, local, local, full]


def test_a_number_keeps_the_most_frequent(checkpoints: dict[str, Path]) -> None:
    texts = [*USED, *(f"{number} {TEXTS[0]}" for number in range(3))]
    for kind in ("xlmr", "bert", "modernbert"):
        least = int(_too_small(checkpoints[kind]))
        sizes = [
            _cut(checkpoints[kind], None, size, texts).tokenizer.get_vocab() for size in (least, least + 9)
        ]
        assert [len(size) for size in sizes] == [least, least + 9]
        assert sizes[0].keys() < sizes[1].keys()
    # The texts' order does not matter.
    one, other = (_cut(checkpoints["bert"], 2, least, some) for some in (texts, texts[::-1]))
    assert fingerprint(one) == fingerprint(other)


def _too_small(checkpoint: Path) -> str:
    with pytest.raises(UsageError, match=r"--student-vocabulary 9: .* are \d+ tokens, expected at") as caught:
        _cut(checkpoint, None, 9)
    return str(caught.value).split(" are ")[1].split()[0]


def test_a_cut_of_a_cut_is_told_from_the_original(checkpoints: dict[str, Path]) -> None:
    model = _cut(checkpoints["modernbert"], 4, "used")
    assert Cut.of(model, "it", 4, "used") is None
    tokens = cut_record(model)["tokens"]
    assert Cut.of(model, "it", None, tokens) is None
    again = Cut.of(model, "it", 2, tokens - 1)
    assert again == Cut(2, tokens - 1)
    again.apply(model, USED)
    assert cut_record(model) | {"of_tokens": 0} == {
        "layers": [0, 6],
        "of_layers": 7,
        "of_tokens": 0,
        "tokens": len(model.tokenizer),
        "vocabulary": tokens - 1,
    }


def test_what_cannot_be_cut(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from tokenizers import models

    model = load_or_create(str(checkpoints["bert"]), (), seed=1, device="cpu")
    assert Cut.of(model, "it", None, None) is None
    assert Cut.of(model, "it", 5, None) is None
    with pytest.raises(UsageError, match="--student-layers 6: it has 5, expected at most"):
        Cut.of(model, "it", 6, "used")
    layer = model.transformers_model.encoder.layer[2]
    layer.output.LayerNorm.eps *= 2
    with pytest.raises(ModelError, match=r"layer 2 stays as it is \(output.LayerNorm.eps\)"):
        Cut.of(model, "it", 3, None)
    layer.output.LayerNorm.eps /= 2
    backend = model.tokenizer.backend_tokenizer
    backend.model = models.WordLevel(backend.get_vocab(), unk_token="[UNK]")
    with pytest.raises(ModelError, match="its tokenizer is a WordLevel, expected one of Unigram, BPE, WordP"):
        Cut.of(model, "it", None, "used")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


SMALLER = {"layers": 1, "vocabulary": "used"}


class Killed(BaseException):
    """Ends a run where a signal would."""


@pytest.mark.slow
def test_training_of_a_smaller_student(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut once, before stage 1, with the texts of both stages; an interrupted run goes on with it."""
    recipe = world.recipe(student={"checkpoint": str(world.root / "student"), **SMALLER})
    first, second = train_both(recipe, world.job(tmp_path / "whole"))
    whole = load_model(str(world.root / "student"), "it", "cpu")
    record = first.manifest.cut
    assert record is not None
    assert (record["layers"], record["of_layers"]) == ([0], 2)
    assert record["tokens"] < record["of_tokens"] == len(whole.tokenizer)
    assert second.manifest.cut == record
    assert len(first.manifest.identity["student"]["texts"]) == 2
    assert "texts" not in second.manifest.identity["student"]
    for trained in (first, second):
        assert (
            f"It has 1 of 2 layers: 0, counted from 0. It has {record['tokens']} of "
            in (trained.model / "README.md").read_text()
        )
    assert not (second.directory / "initial").exists()

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("mimo_plugin.training.trainer.fit", killed)
        with pytest.raises(Killed):
            train_stage1(recipe, world.job(tmp_path / "run"))
    with monkeypatch.context() as patched:
        patched.setattr(Cut, "apply", killed)
        train_stage1(recipe, world.job(tmp_path / "run"))
    assert same_weights(first.directory, tmp_path / "run")
    other = world.recipe(student={**SMALLER, "vocabulary": 200})
    with pytest.raises(ArtifactError, match="student.vocabulary is 200, there it is 'used'"):
        train_stage1(other, world.job(tmp_path / "run"))


@pytest.mark.parametrize(
    ("cut", "aligned"), [({}, True), ({"vocabulary": "used"}, True), ({"layers": 1}, False)]
)
def test_a_student_that_starts_as_its_teacher(
    world: World, tmp_path: Path, cut: dict[str, Any], aligned: bool
) -> None:
    """Both are in one space, so the projection starts as the identity, unless layers are gone."""
    teacher = str(world.root / "teacher")
    student = {"checkpoint": teacher, **cut}
    recipe = world.recipe(student=student, stage1={"steps": 1, "learning_rate": 1e-12})
    trained = train_stage1(recipe, world.job(tmp_path / "run"))
    assert (trained.manifest.cut is None) is not bool(cut)
    projection = load_file(tmp_path / "run" / PROJECTION)
    weight, bias = projection["weight"], projection["bias"]
    assert np.allclose(weight, np.eye(len(bias)), atol=1e-6) is aligned
    assert np.allclose(bias, 0, atol=1e-6) is aligned


def test_options(tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert StudentOptions().identity().keys() == {"checkpoint", "vocabulary"}
    assert StudentOptions(layers=3).identity()["layers"] == 3
    recipe = tmp_path / "recipe.yaml"
    Recipe(student={"checkpoint": "new:mini", "layers": 3, "vocabulary": 300}).write(recipe)
    assert Recipe.read(recipe).student == StudentOptions(checkpoint="new:mini", layers=3, vocabulary=300)
    for asked, message in (
        (["--student-vocabulary", "some"], "student.vocabulary: found 'some', expected"),
        (
            ["--student-vocabulary", "used"],
            "vocabulary is 'used' and the student new:mini, whose tokenizer is",
        ),
        (["--vocabulary", "used"], "vocabulary is 'used' and the student new:mini"),
        (["--student", str(world.root / "student"), "--student-layers", "9"], "--student-layers 9: "),
    ):
        command = ["train", "stage1", "--recipe", str(recipe), "--pairs", str(world.root / "pairs")]
        run = [
            "--teacher",
            str(world.root / "teacher"),
            "--output",
            str(tmp_path / "run"),
            "--max-length",
            "24",
        ]
        assert main([*command, *run, *asked]) != 0
        assert message in capsys.readouterr().err
