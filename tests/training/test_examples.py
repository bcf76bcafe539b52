"""What a batch holds: texts in the drawn languages, and the teacher's vectors of their anchor texts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_training
from helpers.tiny_training import PASSAGE, QUERY, World, text

from mimo_plugin.data.writers import TableWriter
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
from mimo_plugin.training.data import open_pairs, open_table
from mimo_plugin.training.examples import Examples, _drawn_targets, plan_stage1, plan_stage2
from mimo_plugin.training.models import TeacherOptions
from mimo_plugin.training.recipe import Stage1Options, Stage2Options
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.teacher import fill
from mimo_plugin.training.teacher_store import Role, TeacherStore

WHERE = {
    text(template[lang], n): (lang, n)
    for template in (QUERY, PASSAGE)
    for lang in template
    for n in range(60)
}
PROMPTS = {"query_prompt": "such such: ", "passage_prompt": "viele "}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def teacher(world: World) -> Encoder:
    return Encoder(str(world.root / "teacher"), EncoderOptions(device="cpu"))


@pytest.fixture(scope="module")
def store(world: World) -> TeacherStore:
    options = TeacherOptions(checkpoint=str(world.root / "teacher"), dtype="float32", **PROMPTS).on("cpu")
    queries = [text(QUERY["en"], number) for number in range(60)]
    passages = [text(PASSAGE["en"], number) for number in range(60)]
    texts = {Role.TEXT: queries, Role.QUERY: queries, Role.PASSAGE: passages}
    fill(world.root / "store", options, texts, progress=False)
    return TeacherStore.open(world.root / "store", expect=options)


def stage2(world: World, store: TeacherStore | None, **options: object) -> Examples:
    settings = Stage2Options(batch_size=8, **{"steps": 30, **options})
    return plan_stage2(open_table(world.root / "table"), settings, seed=1)(store)


def test_texts_are_different_and_known() -> None:
    assert len(WHERE) == 60 * 6


def test_stage1_labels_are_the_teachers_vectors(world: World, store: TeacherStore, teacher: Encoder) -> None:
    plan = plan_stage1(open_pairs(world.root / "pairs"), Stage1Options(batch_size=8, steps=20), seed=1)
    rows = plan(store).dataset[:160]
    numbers = [WHERE[shown][1] for shown in rows["text"]]
    expected = teacher.encode_queries([text(QUERY["en"], number) for number in numbers], prompt="")
    np.testing.assert_allclose(np.stack(rows["label"]), expected, atol=1e-5)
    counts = Counter(WHERE[shown][0] for shown in rows["text"])
    assert dict(counts) == plan(store).counts


def test_stage2_labels_are_of_each_rows_own_anchor(
    world: World, store: TeacherStore, teacher: Encoder
) -> None:
    rows = stage2(world, store).dataset[:240]
    numbers = [WHERE[shown][1] for shown in rows["query"]]
    assert numbers == [WHERE[shown][1] for shown in rows["passage"]]
    queries = teacher.encode_queries([text(QUERY["en"], n) for n in numbers], prompt=PROMPTS["query_prompt"])
    passages = teacher.encode_queries(
        [text(PASSAGE["en"], n) for n in numbers], prompt=PROMPTS["passage_prompt"]
    )
    labels = np.stack(rows["label"])
    assert labels.shape == (240, 2, store.dimension)
    np.testing.assert_allclose(labels[:, 0], queries, atol=1e-5)
    np.testing.assert_allclose(labels[:, 1], passages, atol=1e-5)


@pytest.fixture(scope="module")
def multilingual(world: World, tmp_path_factory: pytest.TempPathFactory) -> TeacherOptions:
    directory = tiny_training.student(tmp_path_factory.mktemp("multilingual"), seed=8, hidden=24)
    return TeacherOptions(checkpoint=str(directory), dtype="float32", query_prompt="hak: ").on("cpu")


@pytest.mark.parametrize("stage", [1, 2])
def test_drawn_texts_have_the_anchor_teachers_vector(
    world: World, store: TeacherStore, teacher: Encoder, multilingual: TeacherOptions, stage: int
) -> None:
    """Of the text itself; the others have the teacher's of the anchor text. Only drawn ones are encoded."""
    if stage == 1:
        pairs = open_pairs(world.root / "pairs")
        plan = plan_stage1(pairs, Stage1Options(batch_size=8, steps=20, anchor_share="0:1"), seed=1)
        columns = {"text": (Role.TEXT, QUERY, "", "")}
    else:
        options = Stage2Options(batch_size=8, steps=20, anchor_share="0:1")
        plan = plan_stage2(open_table(world.root / "table"), options, seed=1)
        columns = {
            "query": (Role.QUERY, QUERY, PROMPTS["query_prompt"], "hak: "),
            "passage": (Role.PASSAGE, PASSAGE, PROMPTS["passage_prompt"], ""),
        }
    directory = world.root / f"anchor {stage}"
    fill(directory, multilingual, plan.own_texts, progress=False)
    anchor = TeacherStore.open(directory)
    rows = plan(store, anchor).dataset[:160]
    labels = np.stack(rows["label"]).reshape(160, len(columns), -1)
    assert labels.shape[2] == 24 + 1
    encoder, encoded = Encoder(multilingual.checkpoint, EncoderOptions(device="cpu")), 0
    for place, (name, (role, template, prompt, own_prompt)) in enumerate(columns.items()):
        found, drawn = labels[:, place], labels[:, place, -1] > 0
        own = [shown for shown, is_own in zip(rows[name], drawn, strict=True) if is_own]
        assert list(plan.own_texts[role]) == own == list(plan.own_texts[role])
        encoded += len(set(own))
        expected = encoder.encode_queries(own, prompt=own_prompt)
        np.testing.assert_allclose(found[drawn, :24], expected, atol=1e-5)
        numbers = [WHERE[shown][1] for shown in rows[name]]
        anchors = [text(template["en"], n) for n, is_own in zip(numbers, drawn, strict=True) if not is_own]
        np.testing.assert_allclose(
            found[~drawn, :16], teacher.encode_queries(anchors, prompt=prompt), atol=1e-5
        )
        assert set(plan.anchor_texts[role]) == set(anchors)
        assert not found[~drawn, 16:].any()
        assert not drawn[:8].any()
        assert drawn[-8:].all()
        assert {WHERE[shown][0] for shown in own} == {"de", "en", "ru"}
    assert len(anchor) == encoded


@pytest.mark.parametrize("stage", [1, 2])
def test_the_share_is_linear_in_the_step(world: World, stage: int) -> None:
    """Independent for query and passage. The same draws count with every share, and rows keep their order."""

    def drawn(share: str | None, seed: int = 1) -> tuple[np.ndarray, list[list[str]]]:
        values = {"batch_size": 50, "steps": 40, "anchor_share": share}
        if stage == 1:
            pairs, one = open_pairs(world.root / "pairs"), Stage1Options(**values)
            taken, plan = _drawn_targets(one, 40, columns=1, seed=seed), plan_stage1(pairs, one, seed=seed)
        else:
            table, two = open_table(world.root / "table"), Stage2Options(**values)
            taken, plan = _drawn_targets(two, 40, columns=2, seed=seed), plan_stage2(table, two, seed=seed)
        texts = [list(found) for found in plan.own_texts.values()]
        assert [len(found) for found in texts] == taken.sum(axis=0).tolist()
        return taken, texts

    taken, texts = drawn("0.2:0.8")
    expected = np.linspace(0.2, 0.8, 40)
    # Five standard deviations of the mean of 50 draws.
    assert (abs(taken.reshape(40, 50, stage).mean(axis=1) - expected[:, None]) < 5 * 0.5 / 50**0.5).all()
    if stage == 2:
        without_trend = taken - expected.repeat(50)[:, None]
        assert abs(np.corrcoef(without_trend.T)[0, 1]) < 5 / 2000**0.5
    assert drawn("0.2:0.8")[1] == texts
    assert drawn("0.2:0.8", seed=2)[1] != texts
    assert (drawn("0.3:0.9")[0] >= taken).all()
    assert drawn("1:1")[0].all()
    assert not drawn("0:0")[0].any()
    assert not drawn(None)[0].any()


@pytest.mark.parametrize("objective", [Objective.MIMO, Objective.XLCO])
def test_two_languages_a_row(world: World, store: TeacherStore, objective: Objective) -> None:
    examples = stage2(world, store if objective is Objective.MIMO else None, objective=objective)
    rows = examples.dataset[:240]
    shown = Counter(
        f"{WHERE[query][0]}-{WHERE[passage][0]}"
        for query, passage in zip(rows["query"], rows["passage"], strict=True)
    )
    assert dict(shown) == {name: count for name, count in examples.counts.items() if count}
    assert all(len(set(name.split("-"))) == 2 for name in shown)
    assert ("label" in rows) == (objective is Objective.MIMO)
    # Forty of sixty rows have all three languages, so that every pair can come as often as any other.
    assert max(shown.values()) - min(shown.values()) <= 1


def test_infonce_shows_a_row_in_one_language(world: World) -> None:
    examples = stage2(world, None, objective=Objective.INFONCE)
    rows = examples.dataset[:240]
    assert examples.text_columns == ("query", "passage")
    langs = [WHERE[query][0] for query in rows["query"]]
    assert langs == [WHERE[passage][0] for passage in rows["passage"]]
    counts = Counter(langs)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert set(counts) == set(examples.counts) == {"de", "en", "ru"}


def test_lakda_draws_the_passages_language_on_its_own(world: World) -> None:
    rows = stage2(world, None, objective=Objective.LAKDA, steps=90).dataset[:720]
    columns = ("query", "other_query", "passage")
    triples = [tuple(WHERE[rows[column][k]] for column in columns) for k in range(720)]
    assert all(len({number for _, number in triple}) == 1 for triple in triples)
    assert all(query != other for (query, _), (other, _), _ in triples)
    for lang in tiny_training.LANGUAGES:
        shares = Counter(passage for (query, _), _, (passage, _) in triples if query == lang)
        assert set(shares) == set(tiny_training.LANGUAGES)
    same = np.mean([query == passage for (query, _), _, (passage, _) in triples])
    assert 0.2 < same < 0.5


def test_rows_are_collated_in_order_of_length(world: World, store: TeacherStore) -> None:
    """All columns and the labels of a row move together."""
    from mimo_plugin.training.student import load_or_create
    from mimo_plugin.training.trainer import SortedByLength

    model = load_or_create(str(world.root / "student"), (), seed=0, device="cpu")
    examples = stage2(world, store)
    rows = [examples.dataset[k] for k in range(8)]
    found = SortedByLength(preprocess_fn=model.preprocess)([dict(row) for row in rows])
    lengths = [found[f"{column}_attention_mask"].sum(dim=1) for column in ("query", "passage")]
    assert (sum(lengths).diff() >= 0).all()
    labels = {row["label"].numpy().tobytes(): row for row in rows}
    for place, label in enumerate(found["label"]):
        row = labels[label.numpy().tobytes()]
        for column in ("query", "passage"):
            expected = model.preprocess([row[column]])["input_ids"][0].tolist()
            assert found[f"{column}_input_ids"][place].tolist()[: len(expected)] == expected


def test_no_row_meets_its_own_passage_under_another(tmp_path: Path) -> None:
    """Under another id with the same anchor text, or as a query's other positive; German tells rows apart."""
    with TableWriter(tmp_path / "table", anchor="en", parameters={}, source={}) as writer:
        for number in range(80):
            half = number // 2
            english = (f"q {number}", f"p {half}") if number < 40 else (f"q! {half}", f"p! {number}")
            writer.add(f"q{number}", f"p{number}", {"en": english, "de": (f"f {number}", f"a {number}")})
    settings = Stage2Options(batch_size=16, steps=20, objective=Objective.XLCO)
    rows = plan_stage2(open_table(tmp_path / "table"), settings, seed=0)(None).dataset[:]
    shown = [
        int(next(side for side in pair if side[0] in "fa").split()[1])
        for pair in zip(rows["query"], rows["passage"], strict=True)
    ]
    for start in range(0, 320, 16):
        halves = [number // 2 for number in shown[start : start + 16]]
        assert len(set(halves)) == 16


def test_a_seed_decides_everything(world: World) -> None:
    table, settings = open_table(world.root / "table"), Stage2Options(batch_size=8, steps=9, objective="xlco")
    one, same, other = (plan_stage2(table, settings, seed=seed)(None).dataset[:] for seed in (1, 1, 2))
    assert one == same
    assert one != other
