"""Students from scratch, and checkpoints made ready to be trained."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import TEXTS, plain_xlmr, sentence_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_plugin.core.errors import DataError, ModelError, UsageError
from mimo_plugin.encoder.fingerprint import fingerprint
from mimo_plugin.training.student import balanced_sample, create_student, load_or_create, train_tokenizer

LABELLED = [
    *(("de", f"Sprachen, Suchmaschinen; Sprache und Suchmaschine: {number}") for number in range(20)),
    *(
        ("de", f"Ein kurzer Satz über Suchmaschinen und {number} Sprachen, größer als „vorher“.")
        for number in range(40)
    ),
    *(("ja", f"検索エンジンと{number}の言語についての短い文。カタカナも。") for number in range(20)),
    *(("ko", f"검색 엔진과 {number}개 언어에 관한 짧은 문장입니다.") for number in range(20)),
    *(("ru", f"Короткое предложение о поисковых системах и {number} языках.") for number in range(20)),
]


@pytest.fixture(scope="module")
def student() -> object:
    return create_student("new:tiny", LABELLED, vocab_size=700, max_length=32, seed=3, device="cpu")


def test_architecture(student: object) -> None:
    config = student.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("xlm-roberta", 1, 128)
    assert (config.num_attention_heads, config.intermediate_size) == (2, 512)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0, 0)
    assert (config.max_position_embeddings, student.max_seq_length) == (34, 32)
    assert [type(module).__name__ for module in student] == ["Transformer", "Pooling", "Normalize"]
    assert student[1].pooling_mode == "mean"
    assert len(student.tokenizer) == config.vocab_size <= 700
    vectors = student.encode([text for _, text in LABELLED] + ["word " * 100, ""])
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() <= 1e-5


def test_the_same_seed_and_texts_make_the_same_student_in_any_order(student: object) -> None:
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    settings = {"vocab_size": 700, "max_length": 32, "device": "cpu"}
    again = create_student("tiny", reversed([*LABELLED, *LABELLED[:9]]), seed=3, **settings)
    assert torch.equal(torch.rand(3), expected)
    assert fingerprint(again) == fingerprint(student)
    assert fingerprint(create_student("tiny", LABELLED, seed=4, **settings)) != fingerprint(student)


@pytest.mark.parametrize(
    "text", [text for _, text in LABELLED[::17]] + ["Łódź 漢字𠀀 😀 e\u0301 ﬁ", "<0x41> {x}~"]
)
def test_every_text_survives_the_tokenizer(student: object, text: str) -> None:
    import unicodedata

    tokenizer = student.tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[1:-1]) == unicodedata.normalize("NFKC", text)


def test_known_characters_are_pieces_and_unknown_ones_bytes(student: object) -> None:
    tokenizer = student.tokenizer
    assert not any(token.startswith("<0x") for token in tokenizer.tokenize("検索 검색 поисковых größer"))
    assert tokenizer.tokenize("😀")[-4:] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]
    # The text of a byte token is text.
    assert "<0x41>" not in tokenizer.tokenize("<0x41>")
    assert tokenizer.tokenize("a\n\u200b\tb\u3000 c ") == tokenizer.tokenize("a b c")


def test_pieces_are_sentencepieces(student: object) -> None:
    """The form that transformers reads cuts as SentencePiece does, and special tokens have XLM-R's ids."""
    tokenizer = student.tokenizer
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    assert tokenizer("x")["input_ids"][0] == 0
    assert tokenizer("x")["input_ids"][-1] == 2
    assert any(token.startswith("▁Sprach") for token in tokenizer.tokenize(LABELLED[0][1]))


def test_bad_requests() -> None:
    for call, error, message in (
        (
            lambda: create_student("new:huge", LABELLED, seed=0),
            UsageError,
            "'huge', expected one of tiny, mini, small",
        ),
        (lambda: create_student("tiny", [], seed=0), DataError, "no text to train"),
        (lambda: create_student("tiny", [("de", " \n")], seed=0), DataError, "all texts are empty"),
        (lambda: create_student("tiny", LABELLED, vocab_size=300, seed=0), UsageError, "larger vocabulary"),
        (lambda: create_student("tiny", LABELLED, max_length=2, seed=0), UsageError, "at least 3"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_large_language_does_not_crowd_out_a_small_one() -> None:
    texts = [("en", f"number {n:06}") for n in range(20_000)] + [("ja", f"番号{n:06}") for n in range(200)]
    sample = balanced_sample(texts, 20_000, seed=1)
    japanese = sum(len(text) for text in sample if text.startswith("番号"))
    assert sum(map(len, sample)) == pytest.approx(20_000, rel=0.01)
    # All of its 1,600 characters, which are less than its share; in the texts they are 0.6 %.
    assert japanese == 1_600
    assert japanese == sum(len(text) for text in balanced_sample(texts[::-1] * 2, 20_000, 1) if "番" in text)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(["en", "ja", "x"]), st.text(max_size=12)), max_size=60),
    st.integers(1, 200),
    st.randoms(),
)
def test_sample_is_a_set_of_the_texts_within_its_size(
    texts: list[tuple[str, str]], characters: int, random: object
) -> None:
    sample = balanced_sample(texts, characters, seed=5)
    assert set(sample) <= {text for _, text in texts}
    # Each language may go beyond its share by a part of one text.
    assert sum(map(len, sample)) <= characters + 3 * 12
    whole = {lang: {text for other, text in texts if other == lang and text.strip()} for lang, _ in texts}
    if sum(len(text) for some in whole.values() for text in some) <= characters:
        assert sorted(sample) == sorted(text for some in whole.values() for text in some)
    random.shuffle(texts)
    assert balanced_sample(texts, characters, seed=5) == sample


def test_tokenizer_alone_is_the_same_twice() -> None:
    first, second = (train_tokenizer(LABELLED, vocab_size=500, max_length=9, seed=1) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_xlmr(tmp_path_factory.mktemp("plain"))


def test_checkpoints_become_students(plain: Path, tmp_path: Path) -> None:
    student = load_or_create(str(plain), (), seed=1, max_length=20, device="cpu")
    assert [type(module).__name__ for module in student] == ["Transformer", "Pooling", "Normalize"]
    assert (student[1].pooling_mode, student.max_seq_length) == ("mean", 20)
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert frozen == ["0.model.pooler.dense.weight", "0.model.pooler.dense.bias"]
    own = sentence_transformer(
        tmp_path / "own", plain, pooling="cls", normalize=False, prompts={"query": "q: "}
    )
    student = load_or_create(str(own), (), seed=1, device="cpu")
    assert [type(module).__name__ for module in student] == ["Transformer", "Pooling", "Normalize"]
    assert (student[1].pooling_mode, student.max_seq_length, student.prompts["query"]) == ("cls", 48, "q: ")
    created = load_or_create("new:tiny", LABELLED, seed=1, max_length=16, vocab_size=500, device="cpu")
    assert (created.max_seq_length, created.config.hidden_size) == (16, 128)


def test_weights_that_a_checkpoint_lacks_come_from_the_seed(plain: Path, tmp_path: Path) -> None:
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    directory = shutil.copytree(plain, tmp_path / "masked")
    XLMRobertaForMaskedLM(XLMRobertaConfig.from_pretrained(plain)).save_pretrained(directory)
    first, second = (load_or_create(str(directory), (), seed=1, device="cpu") for _ in range(2))
    assert fingerprint(first) == fingerprint(second)


def test_what_is_no_encoder(plain: Path, tmp_path: Path) -> None:
    import transformers as hf
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = hf.AutoTokenizer.from_pretrained(plain)
    small = {"vocab_size": len(tokenizer), "d_model": 32}
    classifier = hf.XLMRobertaForSequenceClassification(hf.XLMRobertaConfig.from_pretrained(plain))
    generator = hf.Qwen3ForCausalLM(
        hf.Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
        )
    )
    t5 = hf.T5Model(hf.T5Config(d_kv=16, d_ff=64, num_layers=1, num_heads=2, **small))
    bart = hf.BartModel(
        hf.BartConfig(
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            **small,
        )
    )
    image = hf.ViTModel(
        hf.ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    )
    models = {"classifier": classifier, "generator": generator, "t5": t5, "bart": bart, "image": image}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    CrossEncoder(str(tmp_path / "classifier"), device="cpu").save_pretrained(str(tmp_path / "cross"))
    words = StaticEmbedding(tokenizer, embedding_dim=8)
    SentenceTransformer(modules=[words], device="cpu").save_pretrained(str(tmp_path / "words"))
    for name, what in (
        ("classifier", r"a classifier or cross-encoder \(XLMRobertaForSequenceClassification\)"),
        ("cross", r"a classifier or cross-encoder \(XLMRobertaForSequenceClassification\)"),
        ("generator", r"a text generator \(Qwen3ForCausalLM\)"),
        ("t5", r"an encoder-decoder \(t5\)"),
        ("bart", r"an encoder-decoder \(bart\)"),
        ("image", "a vit model that cannot read a text"),
        ("words", "a table of word vectors"),
    ):
        with pytest.raises(
            ModelError, match=f"{name} is {what}.*, not an encoder: --student must be"
        ) as caught:
            load_or_create(str(tmp_path / name), (), seed=1, device="cpu")
        assert "\n" not in str(caught.value)
    # A generator that its own files turn into an encoder of texts is one.
    own = sentence_transformer(tmp_path / "own", tmp_path / "generator", pooling="lasttoken")
    assert load_or_create(str(own), (), seed=1, device="cpu").encode(TEXTS).shape == (len(TEXTS), 32)
