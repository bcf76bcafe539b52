"""Slices of topics for `mimo evaluate --slices`: by names in their queries, and by their rarest word."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems, UsageError, near
from mimo_plugin.core.files import check_outputs, make_parent, write_text
from mimo_plugin.data.options import SliceOptions, SlicesBy
from mimo_plugin.data.statistics import counts_table

if TYPE_CHECKING:
    from mimo_plugin.evaluation.topics import Topics

ENTITY, NO_ENTITY, RARE, COMMON = "entity", "no-entity", "rare", "common"
Found = dict[str, list[int]]  # slice -> positions of its topics

# Languages that write every noun with a capital: there a capital says nothing.
_CAPITAL_NOUNS = frozenset({"de", "lb", "nds"})
# A language whose queries have fewer capitals was put into lower case.
_LEAST_CAPITALS = 0.1


def name_in(text: str, lang: str, cased: bool = True) -> bool | None:
    """Whether a query has a word that looks like a name; None if its writing does not tell.

    Three signs say yes. A word has a digit after a letter, or a capital after its first letter: `mp3`,
    `LibreOffice`, `HTML`. Two or more Latin letters in a row stand in a text of another script. A word of two
    or more letters begins with a capital, is not the first of a sentence, and not one of a title, in which
    more than half of the words do; that sign does not count in languages that write all nouns with a capital.

    Without a sign, a text in a script with capitals (Latin, Greek, Cyrillic, Armenian) has no name. Others,
    and titles, can only say yes: scripts without capitals transliterate names.

    Args:
        lang: code of the language.
        cased: whether the language's texts use capitals at all.
    """
    import regex

    latin, letters = len(regex.findall(r"\p{Latin}", text)), len(regex.findall(r"\p{L}", text))
    lower = regex.search(r"\p{Ll}", text) is not None
    if regex.search(r"\p{L}[\p{L}\p{M}]*\p{N}", text):
        return True
    if lower and regex.search(r"\p{L}[\p{L}\p{M}\p{N}]*\p{Lu}", text):
        return True
    if 2 * latin < letters and regex.search(r"\p{Latin}{2}", text):
        return True
    words = list(regex.finditer(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]+", text))
    ends = [0, *(word.end() for word in words)]
    inner = [
        word[0]
        for word, end in zip(words[1:], ends[1:], strict=False)
        if not regex.search(r"[.!?:;…。¿¡]", text[end : word.start()])
    ]
    capitals = sum(bool(regex.match(r"\p{Lu}", word)) for word in inner)
    case = regex.findall(r"[\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}]", text)
    if lang in _CAPITAL_NOUNS or not cased or 2 * len(case) < letters or 2 * capitals > len(inner):
        return None
    return capitals > 0


def by_entities(topics: "Topics", texts: Mapping[str, str]) -> Found:
    """Slices `entity` and `no-entity`: all language versions of a topic are in the same one.

    Versions vote by `name_in`: a topic has an entity if at least half of those that can tell say so. It is in
    no slice if none can tell.
    """
    from mimo_plugin.evaluation.topics import topic_versions

    capitals: dict[str, list[bool]] = {}
    for position, query_id in enumerate(topics.query_ids):
        has = any(character.isupper() for character in texts[query_id])
        capitals.setdefault(topics.language(position), []).append(has)
    cased = {lang: sum(found) >= _LEAST_CAPITALS * len(found) for lang, found in capitals.items()}
    groups = topic_versions(topics)
    grouped = {position for group in groups for position in group}
    groups += [[position] for position in range(len(topics.query_ids)) if position not in grouped]
    found: Found = {ENTITY: [], NO_ENTITY: []}
    for group in groups:
        langs = [topics.language(position) for position in group]
        votes = [
            name_in(texts[topics.query_ids[position]], lang, cased[lang])
            for position, lang in zip(group, langs, strict=True)
        ]
        if any(vote is not None for vote in votes):
            found[ENTITY if votes.count(True) >= votes.count(False) else NO_ENTITY] += group
    return {name: sorted(positions) for name, positions in found.items()}


# Written without spaces between words: pairs of characters stand for words, as in Lucene's CJKAnalyzer.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = rf"(?V1)({_UNSPACED}+)|([[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]+)"


def words_of(text: str) -> Iterator[str]:
    """The words of a text, without case; in scripts without spaces, pairs of neighbouring characters."""
    import regex

    for run, word in regex.findall(_WORD, unicodedata.normalize("NFKC", text).casefold()):
        if run:
            yield from (run[place : place + 2] for place in range(max(1, len(run) - 1)))
        else:
            yield word


def by_rarity(
    topics: "Topics", texts: Mapping[str, str], pool: Any, share: float, progress: bool | None = None
) -> tuple[Found, dict[str, int]]:
    """Slices `rare` and `common`, by the lowest document frequency of a query's words, in each language.

    The frequency of a word is the number of documents in the query's language that have it, 0 included. The
    cut lies between two frequencies, where the share of rare topics is closest to `share`. Topics of a
    language without documents, or whose topics all have the same lowest frequency, are in no slice.

    Args:
        pool: an ir_datasets dataset; its documents are read once.

    Returns:
        The slices; and language -> the highest frequency of a rare topic's rarest word.
    """
    from mimo_plugin.evaluation.topics import UNKNOWN_LANGUAGE

    words = [set(words_of(texts[query_id])) for query_id in topics.query_ids]
    wanted: dict[str, set[str]] = {}
    for position, own in enumerate(words):
        wanted.setdefault(topics.language(position), set()).update(own)
    frequency: dict[str, Counter[str]] = {}
    for doc in bar(pool.docs_iter(), what="counting words", unit="documents", enabled=progress):
        lang = doc.lang or UNKNOWN_LANGUAGE
        if lang in wanted:
            counts = frequency.setdefault(lang, Counter())
            counts.update(wanted[lang].intersection(words_of(doc.default_text())))
    found: Found = {RARE: [], COMMON: []}
    cuts = {}
    for lang, counts in sorted(frequency.items()):
        lowest = {
            position: min(counts[word] for word in own)
            for position, own in enumerate(words)
            if own and topics.language(position) == lang
        }
        values = sorted(lowest.values())
        places = [place for place in range(1, len(values)) if values[place - 1] < values[place]]
        if not places:
            continue
        cuts[lang] = values[min(places, key=lambda place: abs(place - share * len(values))) - 1]
        for position, value in lowest.items():
            found[RARE if value <= cuts[lang] else COMMON].append(position)
    return {name: sorted(positions) for name, positions in found.items()}, cuts


def make_slices(collections: Sequence[str], output: Path, options: SliceOptions) -> str:
    """Writes slices of the judged topics of collections, as `mimo evaluate --slices` reads them.

    Topics have the ids that `mimo evaluate` gives them with the same collections.

    Returns:
        The command's summary.

    Raises:
        UsageError, DataError: with all problems of options and collections.
    """
    from mimo_plugin.collections.loading import require
    from mimo_plugin.evaluation.options import split_names
    from mimo_plugin.evaluation.slices import COLUMNS
    from mimo_plugin.evaluation.topics import load_topics, open_pool

    problems = Problems(UsageError)
    chosen = split_names(options.by)
    for name in chosen:
        if name not in list(SlicesBy):
            known = ", ".join(SlicesBy)
            problems.add(f"--by {name}{near(name, SlicesBy)}; expected one or more of {known}")
    if not 0 < options.rare_share < 1:
        problems.add(f"--rare-share {options.rare_share:g}, expected a share between 0 and 1, such as 0.5")
    with problems.collect():
        check_outputs([output], {})
    with problems.collect():
        require(collections, docs=SlicesBy.RARITY in chosen, queries=True, qrels=True)
    problems.raise_any()
    pool = open_pool(
        collections,
        options.pooled or None,
        shared_topics=options.shared_topics,
        topic_field=options.topic_field,
    )
    topics = load_topics(pool).listed()
    texts = {query.query_id: query.text for query in pool.queries_iter()}
    found: Found = {}
    notes = []
    if SlicesBy.ENTITIES in chosen:
        found |= by_entities(topics, texts)
    if SlicesBy.RARITY in chosen:
        parts, cuts = by_rarity(topics, texts, pool, options.rare_share, options.progress)
        found |= parts
        if cuts:
            shown = ", ".join(f"{lang} {cut:,}" for lang, cut in cuts.items())
            notes.append(f"{RARE}: the rarest word is in at most so many documents: {shown}")
    for first, second in ((ENTITY, NO_ENTITY), (RARE, COMMON)):
        left = len(topics.query_ids) - sum(len(found.get(name, ())) for name in (first, second))
        if first in found and left:
            notes.append(f"{left:,} topics are neither {first} nor {second}: not to be told from their text")
    if not any(found.values()):
        raise DataError(
            f"{', '.join(collections)}: no topic can be put into a slice by {' and '.join(chosen)}, expected "
            "queries with capitals, or with words that fewer and more documents of their language have"
        )
    lines = ["\t".join(COLUMNS)]
    lines += [f"{topics.query_ids[place]}\t{name}" for name, places in found.items() for place in places]
    make_parent(output)
    write_text(output, "".join(f"{line}\n" for line in lines))
    counts = {name: Counter(map(topics.language, places)) for name, places in found.items()}
    blocks = [f"{output}: {len(topics.query_ids):,} topics", counts_table(counts), "\n".join(notes)]
    return "\n\n".join(filter(None, blocks))
