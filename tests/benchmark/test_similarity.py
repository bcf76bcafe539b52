"""`mimo analyze --sts`: correlations as sentence-transformers has them, their intervals, and file formats."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.checkpoints import plain_xlmr, sentence_transformer

from mimo_plugin.benchmark.analyze import analyze
from mimo_plugin.benchmark.settings import AnalyzeOptions, Role
from mimo_plugin.benchmark.similarity import correlate, name_files, read_sentence_pairs
from mimo_plugin.cli import main
from mimo_plugin.core.errors import DataError
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions

CPU = EncoderOptions(device="cpu", backend="torch")
PROMPTS = {"query": "such such: ", "document": "viele viele viele "}
WORDS = ["such", "satz", "lause", "many", "short", "viele", "engine", "hak"]


def drawn(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        one, other = (" ".join(rng.choice(WORDS, rng.integers(2, 6))) for _ in range(2))
        langs = ("de", "en") if number % 3 else ("en", "en")
        score = round(float(rng.uniform(0, 5)), 1)
        rows.append(
            dict(zip(("lang1", "lang2"), langs, strict=True), sentence1=one, sentence2=other, score=score)
        )
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("similarity")
    sentence_transformer(root / "prompted", plain_xlmr(root / "base"), prompts=PROMPTS)
    plain_xlmr(root / "other", seed=4)
    write_jsonl(root / "sts.jsonl", drawn(60))
    return root


@pytest.mark.parametrize("role", [None, Role.DOCUMENTS])
def test_correlations_are_those_of_sentence_transformers(world: Path, role: Role | None) -> None:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    encoder = Encoder(str(world / "prompted"), CPU)
    options = AnalyzeOptions(sts=(world / "sts.jsonl",), role=role, progress=False)
    found = analyze([], [encoder], options=options).sts["sts"]
    assert found.role is (role or Role.QUERIES)
    model = encoder.model
    model.default_prompt_name = "query" if role is None else "document"
    groups = {"all": drawn(60)}
    for pair in ("de-en", "en-en"):
        groups[pair] = [row for row in groups["all"] if f"{row['lang1']}-{row['lang2']}" == pair]
    assert list(found.encoders["prompted"]) == list(groups)
    for name, rows in groups.items():
        columns = [[row[key] for row in rows] for key in ("sentence1", "sentence2", "score")]
        expected = EmbeddingSimilarityEvaluator(*columns, main_similarity="cosine")(model)
        own = found.encoders["prompted"][name]
        assert own.pairs == len(rows)
        assert own.spearman == pytest.approx(expected["spearman_cosine"], abs=1e-12)
        assert own.pearson == pytest.approx(expected["pearson_cosine"], abs=1e-5)
        assert own.low is not None
        assert own.high is not None
        assert own.low < own.spearman < own.high


def test_the_interval_is_scipys_bootstrap_of_scipys_rho() -> None:
    from scipy.stats import bootstrap, spearmanr

    rng = np.random.default_rng(3)
    gold = rng.integers(0, 5, 40).astype(float)
    cosines = np.stack([gold + rng.normal(0, s, 40) for s in (1.0, 3.0, 3.0)])
    found = correlate(gold, cosines, seed=9)
    expected = bootstrap(
        (gold, cosines[1]),
        lambda *samples: spearmanr(*samples).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2_000,
        method="percentile",
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert (found[1].low, found[1].high) == pytest.approx((expected.low, expected.high))
    for own, drawn in zip(found, cosines, strict=True):
        assert own.spearman == pytest.approx(spearmanr(gold, drawn).statistic)
    assert found[0].difference is None
    change = found[1].difference
    assert change is not None
    assert change.value == pytest.approx(found[1].spearman - found[0].spearman)
    assert change.high < 0
    # Encoders are compared on the same samples, so that one with itself does not differ at all.
    same = correlate(gold, np.stack([cosines[0]] * 2), seed=9)[1].difference
    assert same is not None
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert correlate(gold, cosines, seed=9) == found


@pytest.mark.slow
def test_an_interval_covers_the_true_rho() -> None:
    """Of normal pairs with r = 0.5, rho is 6 / pi * arcsin(r / 2)."""
    rng, true = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.25)
    covered = 0
    for trial in range(40):
        one, noise = rng.normal(size=(2, 80))
        (found,) = correlate(one, (0.5 * one + np.sqrt(0.75) * noise)[None], seed=trial)
        covered += found.low <= true <= found.high
    assert covered >= 34


def test_values_that_do_not_vary_have_no_correlation() -> None:
    constant, varied = np.ones(5), np.arange(5.0)
    for gold, cosines in ((constant, varied), (varied, constant)):
        (found,) = correlate(gold, cosines[None], seed=0)
        assert (found.spearman, found.low, found.high, found.pearson) == (None,) * 4
    (two,) = correlate(varied[:2], varied[None, :2], seed=0)
    assert (two.spearman, two.low) == (pytest.approx(1), None)


def test_file_formats(tmp_path: Path) -> None:
    rows = [
        {"sentence1": 'a "quoted" one', "sentence2": "two, with a comma", "score": 0.25, "lang": "de-en"},
        {"sentence1": "drei", "sentence2": "vier", "score": 5.0, "lang": "de"},
    ]
    expected = (['a "quoted" one', "drei"], ["two, with a comma", "vier"], [0.25, 5.0], ["de-en", "de"])
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.tsv", index=False, sep="\t", quoting=csv.QUOTE_NONE)
    frame.to_parquet(tmp_path / "c.parquet")
    write_jsonl(tmp_path / "d.jsonl", rows)
    for name in ("a.csv", "b.tsv", "d.jsonl"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 7
    for file in files:
        assert read_sentence_pairs(file)[1:] == expected


def test_files_are_named_apart(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("sts.csv", "b.tsv.gz", "sts.jsonl")]
    assert list(name_files(files)) == [str(files[0]), "b", str(files[2])]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "sentence1\tsentence2\nx\ty\n", "a.tsv:2: key 'score' is missing"),
        ("a.csv", "sentence1,sentence2,score\nx,y,high\nx,,1\n", r"a.csv:2: .* the score 'high', expected"),
        ("a.csv", "sentence1,sentence2,score\nx,y,1\nx,,1\n", r"a.csv:3: \['x', ''\] with the score '1'"),
        ("a.csv", 'sentence1,sentence2,score\n"x,y,1\n', r"a.csv: not whole CSV in UTF-8"),
        ("a.jsonl", '{"sentence1": 1, "sentence2": "x", "score": 1}\n', "a.jsonl:1: 'sentence1' is"),
        ("a.jsonl", '{"sentence1": "x", "sentence2": "y", "score": null}\n', "the score None, expected"),
        ("a.jsonl", '{"sentence1": "x", "sentence2": "y", "score": 1}\n', "1 sentence pairs, expected two"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_sentence_pairs(tmp_path / name)


def test_the_command(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(
        tmp_path / "more.jsonl", [{k: v for k, v in row.items() if "lang" not in k} for row in drawn(9)]
    )
    files = ["--sts", str(world / "sts.jsonl"), str(tmp_path / "more.jsonl")]
    encoders = ["--encoder", f"a={world / 'base'}", f"b={world / 'other'}", "--device", "cpu"]
    arguments = ["--json", str(tmp_path / "out.json"), "--output", str(tmp_path / "out"), "--no-progress"]
    assert main(["analyze", *files, *encoders, *arguments]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found) == {"geometry", "language_bias", "sts"}
    assert found["geometry"] is None
    assert list(found["sts"]) == ["sts", "more"]
    assert list(found["sts"]["more"]["encoders"]["a"]) == ["all"]
    assert "difference" not in found["sts"]["sts"]["encoders"]["a"]["all"]
    change = found["sts"]["sts"]["encoders"]["b"]["de-en"]["difference"]
    text = (tmp_path / "out" / "tables.txt").read_text()
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["b", "de-en"])
    assert row[2] == "40"
    assert float(row[7]) == pytest.approx(change["value"], abs=1e-4)
    assert "Sentence similarity, sts" in text
