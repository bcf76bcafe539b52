"""The collections of `mimo data aligned`, one a language, and whether a table can be made of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mimo_plugin.collections import load, require
from mimo_plugin.collections.languages import usual_language
from mimo_plugin.data.positives import Positives, check_positives
from mimo_plugin.errors import DataError, Findings, Problems, UsageError

_MMARCO = {"nl": "dt"}
MMARCO_LANGUAGES = ("ar", "de", "es", "fr", "hi", "id", "it", "ja", "nl", "pt", "ru", "vi", "zh")
_ENGLISH = "msmarco-passage/train"


class Member(NamedTuple):
    """Attributes:
    lang: the language's code in the table.
    spec: the collection whose documents and queries are in it.
    """

    lang: str
    spec: str


def mmarco_members(languages: Sequence[str]) -> list[Member]:
    """English and the named languages of mMARCO v2; "all" names every one.

    Raises:
        UsageError: mMARCO does not have a language.
    """
    if not languages:
        return []
    named = [usual_language(code) for code in languages]
    wanted = MMARCO_LANGUAGES if "all" in named else tuple(code for code in named if code != "en")
    problems = Problems(UsageError)
    problems.extend(
        f"--mmarco {code}: not a language of mMARCO v2, expected all, or some of {' '.join(MMARCO_LANGUAGES)}"
        for code in wanted
        if code not in MMARCO_LANGUAGES
    )
    problems.raise_any()
    members = [Member(code, f"mmarco/v2/{_MMARCO.get(code, code)}/train") for code in dict.fromkeys(wanted)]
    return [Member("en", _ENGLISH), *members]


def parse_members(specs: Sequence[str], mmarco: Sequence[str] = ()) -> list[Member]:
    """The collections that options name, in order.

    Args:
        specs: LANG=COLLECTION, or COLLECTION where it says its language itself.
        mmarco: see `mmarco_members`.

    Raises:
        MimoError: with everything that is wrong with the options.
    """
    findings = Findings()
    members = list(findings.attempt(mmarco_members, mmarco) or ())
    for spec in specs:
        lang, equals, rest = spec.partition("=")
        if equals and lang.split() == [lang] and rest and not lang.startswith("path:"):
            members.append(Member(usual_language(lang), rest))
            continue
        dataset = findings.attempt(load, spec)
        if dataset is not None:
            own = _own_language(dataset)
            if own:
                members.append(Member(own, spec))
            else:
                findings.add(
                    UsageError, [f"--collection {spec}: does not say its language, expected LANG={spec}"]
                )
    findings.raise_any()
    return members


def check_members(
    members: Sequence[Member],
    anchor: str,
    *,
    positives: Positives | None = None,
    positives_from: str | None = None,
) -> tuple[Member, Positives]:
    """Checks that the collections can be had and that a table can be made of them.

    Args:
        positives: what is to say which passages are positive; None takes triples, else qrels.
        positives_from: language whose collection is to say it. None takes the first that is not the anchor's:
            the triples of msmarco-passage in ir_datasets are not those of mMARCO and of the paper.

    Returns:
        The collection that says which passages are positive, and by what.

    Raises:
        MimoError: with everything that is wrong.
    """
    findings = Findings()
    findings.add(UsageError, _usage_problems(members, anchor, positives_from))
    findings.attempt(require, [member.spec for member in members], docs=True, queries=True)
    loaded = [member for member in members if _loads(member.spec)]
    for member in loaded:
        findings.add(DataError, _language_problems(member))
    asked = [member for member in loaded if member.lang == positives_from]
    judges = asked if positives_from else [member for member in loaded if member.lang != anchor]
    kind = findings.attempt(_kind, judges[0].spec, positives) if judges else None
    kind = findings.complete(kind)
    return judges[0], kind


def _usage_problems(members: Sequence[Member], anchor: str, positives_from: str | None) -> Iterator[str]:
    counts = Counter(member.lang for member in members)
    found = ", ".join(counts)
    for lang, count in counts.items():
        if count > 1:
            yield f"{lang}: {count} collections, expected one for each language: leave the others out"
    for spec, count in Counter(member.spec for member in members).items():
        langs = " and ".join(member.lang for member in members if member.spec == spec)
        if count > 1:
            yield f"{spec} was given for {langs}, expected another collection for each language"
    if not members:
        yield "no collection was given, expected --mmarco, or --collection for each language"
    elif anchor not in counts:
        example = f"{anchor}={_ENGLISH if anchor == 'en' else 'COLLECTION'}"
        yield (
            f"no collection in the anchor language {anchor}, found {found}: add --collection {example}, or "
            "choose another --anchor"
        )
    elif len(counts) < 2:
        yield f"only {anchor} was given, expected at least one other language"
    if members and positives_from is not None and positives_from not in counts:
        yield f"--positives-from {positives_from}: expected one of {found}"


def _kind(spec: str, asked: Positives | None) -> Positives:
    dataset = load(spec)
    there = [kind for kind in Positives if dataset.has(kind.part)]
    if not there or (asked is not None and asked not in there):
        instead = f"--positives {there[0]}" if there else "--positives-from another language"
        raise DataError(
            f"{spec} has no {asked or 'triples or qrels'} to say which passages are positive: give {instead}"
        )
    kind = asked or there[0]
    check_positives(spec, kind)
    return kind


def _loads(spec: str) -> bool:
    try:
        load(spec)
    except DataError:
        return False
    return True


def _language_problems(member: Member) -> list[str]:
    own = _own_language(load(member.spec))
    if own and own != member.lang:
        return [f"{member.lang}={member.spec}: its documents are in {own}, expected {member.lang}"]
    return []


def _own_language(dataset: Any) -> str:
    return usual_language((dataset.docs_lang() if dataset.has_docs() else "") or "")
