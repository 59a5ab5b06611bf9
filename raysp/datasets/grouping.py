"""Grouping of training examples into components: one each, by a column, by content (TF-IDF and k-means), or by near-duplication.

Vectorised: a hundred thousand examples take between seconds and a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raysp.datasets.cells import text_of
from raysp.datasets.near_duplicates import near_duplicates, renumbered
from raysp.datasets.training_sets import Sample, TrainingSet
from raysp.errors import UserError
from raysp.specs.lenses import DataLens

Kind = Literal["example", "column", "cluster", "duplicates"]

#: Values of group_by that are not names of columns.
CLUSTER, DUPLICATES = "cluster", "duplicates"
#: Default number of clusters; half the number of examples if that is less.
CLUSTERS = 64
#: Maximum length of a component's label.
SHOWN = 60
#: Size of the TF-IDF vocabulary, and dimensions that it is reduced to.
VOCABULARY, DIMENSIONS = 20_000, 64
#: Number of points up to which k-means uses all of them at once; more are clustered in batches of this size.
BATCH = 4096
#: Number of words in the label of a cluster.
NAMING = 3


@dataclass(frozen=True, slots=True)
class Groups:
    """The component of each example, int64 `(examples,)`, numbered from 0 in order of appearance; a label for each component, and how they were made."""

    of: NDArray[np.int64]
    labels: tuple[str, ...]
    kind: Kind
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of components."""
        return len(self.labels)


def group(training: TrainingSet, lens: DataLens) -> Groups:
    """The components of a training set: the groups of `group_by`, clustered down to `components` if there are more, which a note reports.

    UserError for an unknown column, a single group, or fewer groups than `components`. Depends only on the texts and `training_seed`.
    """
    made = _made(training.samples, lens)
    if made.count < 2:
        raise UserError("group_by", lens.group_by, "puts all examples into one component", "group by something that differs, or leave out group_by")
    if lens.components is None or lens.components == made.count or lens.group_by == CLUSTER:
        return made
    if lens.components > made.count:
        what = "examples" if made.kind == "example" else "groups"
        raise UserError("components", lens.components, f"is more than the {made.count} {what}", f"use {made.count} or fewer, or give more examples")
    merged = _merged(training.samples, lens, made, lens.components)
    if merged.count < 2:
        raise UserError("components", lens.components, "puts all examples into one component, because they use the same words", "leave out components")
    return merged


def short(sample: Sample) -> str:
    """An example in one line of at most sixty characters, shortened in the prompt rather than in the completion, which tells similar examples apart."""
    prompt, completion = (" ".join(text.split()) for text in (sample.prompt, sample.completion))
    completion = _cut(completion, max(SHOWN // 3, SHOWN - len(prompt) - 3))
    return _cut(prompt, SHOWN - len(completion) - 3) + " → " + completion


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _made(samples: Sequence[Sample], lens: DataLens) -> Groups:
    """The groups before any are merged."""
    if lens.group_by is None:
        return Groups(np.arange(len(samples)), tuple(short(sample) for sample in samples), "example")
    if lens.group_by in (CLUSTER, DUPLICATES) and lens.group_by in samples[0].extra:
        raise UserError("group_by", lens.group_by, "is a way to group and also a column of the training set", "rename the column")
    if lens.group_by == CLUSTER:
        return _clustered(samples, lens)
    if lens.group_by == DUPLICATES:
        of = near_duplicates([_text(sample) for sample in samples], lens.training_seed)
        first, sizes = _first_and_sizes(of)
        labels = tuple(short(samples[i]) + (f" ({size} near-duplicates)" if size > 1 else "") for i, size in zip(first, sizes, strict=True))
        return Groups(of, labels, "duplicates", (f"{len(samples)} examples make {len(labels)} groups of near-duplicates",))
    return _by_column(samples, lens.group_by)


def _by_column(samples: Sequence[Sample], column: str) -> Groups:
    if column not in samples[0].extra:
        known = ", ".join(samples[0].extra)
        raise UserError("group_by", column, "is not a column of the training set", f"its columns are {known}; cluster and duplicates need none")
    values = [text_of(sample.extra.get(column)) for sample in samples]
    numbers: dict[str, int] = {}
    of = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
    sizes = np.bincount(of).tolist()
    labels = tuple(_column_label(column, value, size) for value, size in zip(numbers, sizes, strict=True))
    return Groups(of, labels, "column", (f"{len(samples)} examples make {len(labels)} groups by {column}, of {_range(sizes)} examples",))


def _column_label(column: str, value: str, size: int) -> str:
    named = f"{column}={_cut(' '.join(value.split()), SHOWN)}" if value else f"without {column}"
    return f"{named} ({_examples(size)})"


def _clustered(samples: Sequence[Sample], lens: DataLens) -> Groups:
    count = lens.components or min(CLUSTERS, max(2, len(samples) // 2))
    if count > len(samples):
        raise UserError("components", count, f"is more than the {len(samples)} examples", f"use {len(samples)} or fewer, or give more examples")
    points, words = _tfidf(samples)
    of = _kmeans(_reduced(points, lens.training_seed), count, lens.training_seed)
    labels, sizes = _cluster_labels(samples, of, points, words)
    wanted = "" if len(labels) == count else f" (not {count}, because some examples have the same words)"
    return Groups(of, labels, "cluster", (f"{len(samples)} examples make {len(labels)} clusters{wanted} of {_range(sizes)} examples",))


def _merged(samples: Sequence[Sample], lens: DataLens, made: Groups, count: int) -> Groups:
    """Groups, represented by the mean of their examples, clustered down to `count`."""
    from scipy.sparse import csr_matrix

    points, words = _tfidf(samples)
    sizes = np.bincount(made.of)
    means: Any = csr_matrix((1 / sizes[made.of], (made.of, np.arange(len(samples)))), shape=(made.count, len(samples)))
    of_groups = _kmeans(_reduced(means @ points, lens.training_seed), count, lens.training_seed)
    of = renumbered(of_groups[made.of])
    labels, sizes = _cluster_labels(samples, of, points, words)
    what = "examples" if made.kind == "example" else "groups"
    note = f"{made.count} {what} are clustered into {len(labels)} components of {_range(sizes)} examples, because components is {count}"
    return Groups(of, labels, "cluster", (*made.notes, note))


def _text(sample: Sample) -> str:
    return f"{sample.prompt}\n{sample.completion}"


def _topic(sample: Sample) -> str:
    """The text that an example is clustered by; a label is not part of it."""
    return sample.prompt if sample.label is not None else _text(sample)


def _tfidf(samples: Sequence[Sample]) -> tuple[Any, NDArray[np.object_]]:
    """TF-IDF weights, a sparse float64 matrix `(examples, words)`, and the words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Every run of letters and digits is a word, so that texts of stop words or single letters have weights too.
    vectorizer = TfidfVectorizer(max_features=VOCABULARY, sublinear_tf=True, token_pattern=r"\w+")  # noqa: S106  not a password
    try:
        found: Any = vectorizer.fit_transform([_topic(sample) for sample in samples])
    except ValueError:
        raise UserError("group_by", CLUSTER, "needs words, and the examples have none", "use group_by with duplicates or a column") from None
    return found, vectorizer.get_feature_names_out()


def _reduced(points: Any, seed: int) -> NDArray[np.float64]:
    """The points in few dimensions with unit length, float64 `(points, dimensions)`."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    from raysp.threads import one_thread

    least = min(points.shape)
    if least <= DIMENSIONS:
        dense = np.asarray(points.todense(), np.float64)
    else:
        with one_thread():
            dense = TruncatedSVD(DIMENSIONS, random_state=seed).fit_transform(points)
    # Rounded, so that differences in the last bits between processors do not change the clusters.
    return np.round(np.asarray(normalize(dense), np.float64), 6)


def _kmeans(points: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """The cluster of each point, numbered in order of appearance."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    from raysp.threads import one_thread

    options: dict[str, Any] = {"n_clusters": count, "n_init": 1, "random_state": seed}
    model = KMeans(**options) if len(points) <= BATCH else MiniBatchKMeans(**options, batch_size=BATCH)
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters, which the note reports
        return renumbered(np.asarray(model.fit_predict(points), np.int64))


def _cluster_labels(samples: Sequence[Sample], of: NDArray[np.int64], points: Any, words: NDArray[np.object_]) -> tuple[tuple[str, ...], list[int]]:
    """The words that distinguish each cluster (the text of a single example), and the size of each."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    first, sizes = _first_and_sizes(of)
    members: Any = csr_matrix((1 / np.array(sizes)[of], (of, np.arange(len(of)))), shape=(len(sizes), len(of)))
    means, usual = (members @ points).tocsr(), np.asarray(points.mean(axis=0)).ravel()
    empty = np.array([word in ENGLISH_STOP_WORDS or len(word) < 3 for word in words])
    labels: list[str] = []
    for number, (example, size) in enumerate(zip(first, sizes, strict=True)):
        row = means[number]
        ahead = np.round(row.data - usual[row.indices], 6)
        telling = row.indices[np.lexsort((row.indices, -ahead, empty[row.indices]))[:NAMING]]
        labels.append(short(samples[example]) if size == 1 else f"{', '.join(words[telling])} ({_examples(size)})")
    return tuple(labels), sizes


def _first_and_sizes(of: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The first example of each component, and its size."""
    _, first, sizes = np.unique(of, return_index=True, return_counts=True)
    return first.tolist(), sizes.tolist()


def _examples(size: int) -> str:
    return "1 example" if size == 1 else f"{size} examples"


def _range(sizes: Sequence[int]) -> str:
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
