"""Stems, groups and splits: no variant of a package is on two sides."""

import random
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mimo_plugin.data.debian.archive import DescriptionTexts as Texts
from mimo_plugin.data.debian.archive import Row
from mimo_plugin.data.debian.split import (
    LARGEST_EVALUATED,
    Descriptions,
    Sketches,
    split_rows,
    stem,
)
from mimo_plugin.data.options import Split, SplitOptions

SOFTWARE = st.from_regex(r"[a-z]{2,8}(-[a-z]{4,8})?", fullmatch=True).filter(lambda name: stem(name) == name)
VARIANTS = (
    "{}",
    "lib{}1",
    "lib{}2t64",
    "lib{}0v5",
    "lib{}-1.2-3",
    "lib{}-dev",
    "lib{}3-dbg",
    "lib{}-perl",
    "lib{}-java-doc",
    "libghc-{}-prof",
    "librust-{}-dev",
    "{}-doc",
    "{}-doc-de",
    "{}-data",
    "{}-common",
    "{}-l10n-pt-br",
    "{}-12-x86-64-linux-gnux32",
    "{}-plugin-mysql",
    "python3-{}",
    "python3-{}-doc",
    "python-{}-examples",
    "ruby-{}",
    "node-{}",
    "golang-github-{}-dev",
    "r-cran-{}",
    "gir1.2-{}-1.0",
    "fonts-{}",
    "elpa-{}",
)


@given(SOFTWARE)
def test_variants_share_a_stem(software: str) -> None:
    assert {stem(variant.format(software)) for variant in VARIANTS} == {software}


@given(st.from_regex(r"[a-z0-9][a-z0-9+.-]{0,30}", fullmatch=True))
def test_a_stem_is_a_name_and_its_own_stem(package: str) -> None:
    found = stem(package)
    assert found
    assert found in package
    assert stem(found) == found


def test_different_software_keeps_its_name() -> None:
    assert stem("0ad-data") == "0ad"
    assert len({stem(name) for name in ("abiword", "gimp", "kicad", "postgresql-15", "zlib1g")}) == 5


def words(seed: int, count: int) -> str:
    chosen = random.Random(seed)
    return " ".join("".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(count))


def described(*packages: tuple[str, str]) -> Descriptions:
    """Descriptions of (package, English long text), with ids of their own."""
    return Descriptions.of(
        [
            Row(f"{number}-{package}", package, {"en": Texts("s", text)})
            for number, (package, text) in enumerate(packages)
        ]
    )


def test_nearly_the_same_texts_are_one_group() -> None:
    text = words(1, 80)
    changed = text.split()
    changed[40] = "another"
    found = described(
        ("alpha", text),
        ("beta", " ".join(changed)),
        ("gamma", f"{text.upper()}  (version 2.0)."),
        ("delta", words(2, 80)),
    )
    names = found.groups()
    assert names[0] == names[1] == names[2] != names[3]
    assert found.variants(described(("epsilon", text))) == {0, 1, 2}


def test_variants_are_direct_and_groups_go_on() -> None:
    first, second = words(1, 60), words(2, 60)
    found = described(("alpha", first), ("beta", first), ("libbeta1", second), ("gamma", words(3, 60)))
    names = found.groups()
    assert names[0] == names[1] == names[2] != names[3]
    assert found.variants(described(("alpha-doc", words(4, 60)))) == {0}
    assert found.variants(described(("other", second))) == {2}
    assert found.variants(described(("beta-doc", ""))) == {1, 2}


@given(st.permutations(range(12)))
def test_groups_do_not_depend_on_the_order(order: list[int]) -> None:
    packages = [(f"lib{'abcd'[number % 4] * 4}{number}", words(number // 3, 30)) for number in range(12)]
    names = described(*packages).groups()
    shuffled = described(*(packages[number] for number in order)).groups()
    assert {number: shuffled[place] for place, number in enumerate(order)} == dict(enumerate(names))


@pytest.mark.parametrize("text", ["", "...", "42"])
def test_texts_without_words_are_near_nothing(text: str) -> None:
    found = described(("alpha", text), ("beta", text))
    assert len(set(found.groups())) == 2
    assert not found.variants(described(("gamma", text)))


def test_near_texts_are_found_among_many() -> None:
    """Of pairs that share 0.7 of their shingles or more, hardly one in a thousand is missed."""
    texts = [words(number, 60) for number in range(1000)]
    changed = [" ".join([*text.split()[:-3], "three", "other", "words"]) for text in texts]
    pairs = set(Sketches.of([*texts, *changed]).pairs())
    assert len({(number, number + 1000) for number in range(1000)} & pairs) >= 998
    assert all(other - one == 1000 for one, other in pairs)
    assert len(Sketches.of(texts).near(Sketches.of(changed))) >= 998
    assert not Sketches.of(texts).near(Sketches.of([words(number, 60) for number in range(1000, 1100)]))


def row(number: int, package: str, text: str = "") -> Row:
    long = text or words(number, 20)
    return Row(f"{number:012x}", package, {"en": Texts("s", long), "de": Texts("k", long.upper())})


def variants(packages: int) -> list[Row]:
    """Software s0, s1, ... with a library, a program and its documentation each."""
    names = (f"{start}{word}{end}" for word in names_of(packages) for start, end in SIDES)
    return [row(number, name) for number, name in enumerate(names)]


SIDES = (("lib", "1"), ("", ""), ("", "-doc"))


def names_of(count: int) -> list[str]:
    return [f"soft{words(number, 1)}" for number in range(count)]


@given(st.integers(0, 2**32), st.floats(0, 0.45), st.floats(0, 0.45))
def test_no_software_crosses_the_split_and_nothing_is_lost(seed: int, dev: float, test: float) -> None:
    rows = variants(20)
    splits, dropped = split_rows(rows, {}, {}, SplitOptions(dev, test, seed))
    sides = {stem(row.package): {split for split in Split if row in splits[split]} for row in rows}
    assert all(len(found) == 1 for found in sides.values())
    assert sorted(row for part in splits.values() for row in part) == sorted(rows)
    assert not dropped


def test_shares_are_kept_in_the_mean() -> None:
    splits, _ = split_rows(variants(1000), {}, {}, SplitOptions(0.1, 0.2, seed=1))
    assert len(splits[Split.DEV]) / 3000 == pytest.approx(0.1, abs=0.03)
    assert len(splits[Split.TEST]) / 3000 == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_template_of_many_trains(seed: int) -> None:
    template = words(1, 40)
    many = [row(number, f"{words(number, 1)}-x", template) for number in range(LARGEST_EVALUATED + 1)]
    options = SplitOptions(0.5, 0.4, seed)
    assert split_rows(many, {}, {}, options)[0][Split.TRAIN] == many
    few, _ = split_rows(many[1:], {}, {}, options)
    assert sorted(map(len, few.values())) == [0, 0, LARGEST_EVALUATED]


def test_a_given_split_is_left_as_it_is_and_its_variants_do_not_train() -> None:
    main, given = variants(30), [row(1000, "softnew"), row(1001, main_package := f"{names_of(1)[0]}-utils")]
    splits, dropped = split_rows(main, {Split.DEV: given}, {}, SplitOptions(dev_share=0.5, test_share=0.2))
    assert splits[Split.DEV] == given
    left = splits[Split.TRAIN] + splits[Split.TEST]
    assert stem(main_package) not in {stem(row.package) for row in left}
    assert len(left) == len(main) - 3
    assert dropped == {"variant of a given dev description": Counter(en=3, de=3)}


def test_a_given_dev_split_does_not_change_the_test_split() -> None:
    main = variants(60)
    splits, _ = split_rows(main, {}, {}, SplitOptions())
    given, _ = split_rows(main, {Split.DEV: [row(1000, "softnew")]}, {}, SplitOptions())
    assert given[Split.TEST] == splits[Split.TEST]


@given(st.integers(0, 59), st.booleans())
def test_variants_of_an_excluded_description_do_not_train(number: int, by_text: bool) -> None:
    rows = variants(20)
    plain, _ = split_rows(rows, {}, {}, SplitOptions())
    assume(rows[number] in plain[Split.TRAIN])
    chosen = rows[number]
    excluded = {"no-such-id": chosen.english().long} if by_text else {chosen.id: ""}
    splits, dropped = split_rows(rows, {}, excluded, SplitOptions())
    software = stem(chosen.package)
    assert splits[Split.TRAIN] == [row for row in plain[Split.TRAIN] if stem(row.package) != software]
    assert splits[Split.DEV] == plain[Split.DEV]
    assert splits[Split.TEST] == plain[Split.TEST]
    assert dropped == {"variant of an excluded description": Counter(en=3, de=3)}
