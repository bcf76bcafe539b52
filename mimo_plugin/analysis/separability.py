"""How well a probe tells a text's language from its vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimo_plugin.errors import DataError

FOLDS = 5
NEIGHBOURS = 5


@dataclass(frozen=True)
class Separability:
    """Accuracies from 0 to 1, of which each language has the same share: the mean over languages of the
    share of its texts whose language was told. chance: what a probe has that knows nothing, 1 / languages.

    centroid: of the language whose mean vector is nearest. knn: of the majority of the nearest `neighbours`.
    left_out: languages with fewer texts than folds.
    """

    centroid: float
    knn: float
    neighbours: int
    folds: int
    chance: float
    left_out: tuple[str, ...]


def separability(
    vectors: NDArray[np.float32],
    langs: Sequence[str],
    groups: Sequence[str],
    *,
    folds: int = FOLDS,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> Separability:
    """Asks two probes for the language of each vector, trained on the other folds.

    Folds hold like numbers of each language, and all versions of a text: with a translation among the
    training vectors, nearest neighbours would tell the text and not the language. A text that exists in few
    languages can still tell them by what it is about.

    Args:
        vectors: (n, d), of length 1: the nearest by distance are the nearest by cosine.
        langs, groups: (n,) languages, and names that are equal for the versions of one text.

    Raises:
        DataError: fewer than two languages with as many texts as folds, or all vectors are the same.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

    names, labels = np.unique(np.asarray(langs), return_inverse=True)
    texts = [len(set(np.asarray(groups)[labels == label])) for label in range(len(names))]
    probed = np.flatnonzero(np.array(texts) >= folds)
    if len(probed) < 2:
        raise DataError(
            f"{len(probed)} languages with {folds} texts or more, expected two or more to be told apart"
        )
    rows = np.isin(labels, probed)
    vectors, labels = vectors[rows], labels[rows]
    if (vectors == vectors[0]).all():
        raise DataError(f"all {len(vectors):,} vectors are the same, expected different ones for a probe")
    texts_of = np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    parts = list(
        StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(vectors, labels, texts_of)
    )

    def accuracy(probe: object) -> float:
        told = cross_val_predict(probe, vectors, labels, cv=parts) == labels
        return float(np.mean([told[labels == label].mean() for label in probed]))

    return Separability(
        centroid=accuracy(NearestCentroid()),
        knn=accuracy(KNeighborsClassifier(neighbours, algorithm="brute")),
        neighbours=neighbours,
        folds=folds,
        chance=1 / len(probed),
        left_out=tuple(str(name) for name in np.delete(names, probed)),
    )
