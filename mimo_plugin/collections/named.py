"""A collection's folder by its name, however a release spells it: `belebele` finds `MMLIR/Belebele_test`."""

import re
from collections.abc import Iterable

# Of the MIMO paper's releases, the one with queries in every language.
_PREFERRED = "MMLIR"
_SPLITS = ("test", "", "dev")
_NAME = re.compile(r"(?P<stem>.+?)([-_. ](?P<split>test|dev))?", re.ASCII)


def matching_folders(folders: Iterable[str], name: str) -> list[str]:
    """The folders that fit a name best; several where nothing decides between them.

    A folder fits that is called so but for case, punctuation, a version and `_test` or `_dev` at the end,
    where the name says or below any one folder there. Best are the first of these that there are: the name
    itself, at its place, in `MMLIR`, elsewhere; of those `_test` comes first and `_dev` last.

    Args:
        folders: of a directory, relative to it, with `/`.
    """
    parent, _, last = name.rpartition("/")
    ranked: dict[tuple[int, int], list[str]] = {}
    for folder in sorted(set(folders)):
        within = folder.removeprefix(f"{parent}/") if parent else folder
        above, _, own = within.rpartition("/")
        stem, split = _stem(own)
        if (parent and within == folder) or "/" in above or stem != _stem(last)[0]:
            continue
        # Anything may have a folder of that name.
        if last.casefold() in _SPLITS and folder != name:
            continue
        place = 0 if folder == name else 1 if not above else 2 if above == _PREFERRED else 3
        ranked.setdefault((place, _SPLITS.index(split)), []).append(folder)
    return ranked[min(ranked)] if ranked else []


def _stem(name: str) -> tuple[str, str]:
    """What names have in common that mean the same, and the split."""
    found = _NAME.fullmatch(name.casefold())
    if found is None:
        return name, ""
    return re.sub(r"[-_. ]?v[0-9]+$|[-_. ]", "", found["stem"]), found["split"] or ""
