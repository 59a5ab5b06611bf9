"""Components are single examples, a column's values, clusters or near-duplicates, and as many as were asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.datasets.grouping import SHOWN, group, short
from raysp.datasets.near_duplicates import SIMILARITY, near_duplicates
from raysp.datasets.training_sets import Sample, TrainingSet
from raysp.errors import UserError
from raysp.specs.lenses import DataLens

SUBJECTS = {
    "space": ["rocket", "orbit", "planet", "star", "moon", "comet", "galaxy", "astronaut", "telescope", "gravity"],
    "food": ["bread", "butter", "cheese", "apple", "soup", "kitchen", "recipe", "oven", "salt", "sugar"],
    "sport": ["goal", "team", "referee", "stadium", "ball", "match", "player", "coach", "league", "trophy"],
}


def sample(prompt, completion="yes", **extra):
    return Sample(prompt, completion, extra=extra)


def about(subject, count, rng):
    return [sample(" ".join(rng.choice(SUBJECTS[subject], 6)), subject=subject) for _ in range(count)]


@pytest.fixture(scope="module")
def subjects():
    rng = np.random.default_rng(0)
    found = [one for subject, count in zip(SUBJECTS, (10, 14, 6), strict=True) for one in about(subject, count, rng)]
    return TrainingSet(tuple(found[i] for i in rng.permutation(len(found))))


def grouped(training, **options):
    return group(training, DataLens(train="unread", **options))


def partition(of):
    return {tuple(np.flatnonzero(of == number)) for number in np.unique(of)}


def test_every_example_is_its_own_component_unless_told_otherwise(subjects):
    groups = grouped(subjects)
    assert groups.kind == "example"
    assert groups.of.tolist() == list(range(30))
    assert groups.labels[0] == f"{subjects.samples[0].prompt} → yes"
    assert grouped(subjects, components=30).labels == groups.labels


def test_the_values_of_a_column_are_components(subjects):
    groups = grouped(subjects, group_by="subject")
    assert groups.kind == "column"
    assert sorted(groups.labels) == ["subject=food (14 examples)", "subject=space (10 examples)", "subject=sport (6 examples)"]
    for one, component in zip(subjects.samples, groups.of, strict=True):
        assert groups.labels[component].startswith(f"subject={one.extra['subject']} ")
    assert groups.notes == ("30 examples make 3 groups by subject, of 6 to 14 examples",)


def test_clusters_find_what_examples_are_about_and_are_named_by_their_words(subjects):
    groups = grouped(subjects, group_by="cluster", components=3)
    assert partition(groups.of) == partition(grouped(subjects, group_by="subject").of)
    for label in groups.labels:
        words = label.split(" (")[0].split(", ")
        assert any(set(words) <= set(known) for known in SUBJECTS.values())


def test_a_label_says_nothing_of_what_an_example_is_about():
    rng = np.random.default_rng(1)
    found = [
        Sample(one.prompt, label, label=label, extra=one.extra) for subject in SUBJECTS for one, label in zip(about(subject, 8, rng), "ab" * 4, strict=True)
    ]
    training = TrainingSet(tuple(found), ("a", "b"))
    assert partition(grouped(training, group_by="cluster", components=3).of) == partition(grouped(training, group_by="subject").of)


def test_more_examples_than_components_are_clustered_and_it_is_reported(subjects):
    groups = grouped(subjects, components=3)
    assert groups.kind == "cluster"
    assert len(groups.labels) == 3
    assert groups.notes[0].startswith("30 examples are clustered into 3 components of ")
    assert "because components is 3" in groups.notes[0]


def test_more_groups_than_components_are_clustered_whole():
    rng = np.random.default_rng(2)
    found = [sample(one.prompt, day=f"{subject} {i % 4}") for subject in SUBJECTS for i, one in enumerate(about(subject, 12, rng))]
    groups = grouped(TrainingSet(tuple(found)), group_by="day", components=3)
    assert len(groups.notes) == 2
    for day in {one.extra["day"] for one in found}:
        assert len({int(groups.of[i]) for i, one in enumerate(found) if one.extra["day"] == day}) == 1
    assert partition(groups.of) == {tuple(range(start, start + 12)) for start in (0, 12, 24)}


def test_clusters_without_a_number_are_half_the_examples_at_most(subjects):
    assert len(grouped(subjects, group_by="cluster").labels) == 15


def test_the_same_examples_and_seed_make_the_same_groups(subjects):
    first, again = (grouped(subjects, components=7) for _ in range(2))
    assert (first.of == again.of).all()
    assert first.labels == again.labels


def test_near_duplicates_are_one_component():
    original = "The committee met on Tuesday to discuss the budget for the coming year and could not agree on anything"
    nearly = [original, original.upper(), original + "!", original.replace("Tuesday", "Monday"), "Something else entirely, about the weather in spring"]
    groups = grouped(TrainingSet(tuple(sample(text) for text in nearly)), group_by="duplicates")
    assert groups.of.tolist() == [0, 0, 0, 0, 1]
    assert groups.labels[0].endswith("(4 near-duplicates)")
    assert "near-duplicates" not in groups.labels[1]


def shingles(text):
    text = " ".join(text.lower().split()).ljust(5, "\0")
    return {text[i : i + 5] for i in range(len(text) - 4)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab ", min_size=0, max_size=14), min_size=2, max_size=12))
def test_groups_are_the_closure_of_similar_pairs(texts):
    sets = [shingles(text) for text in texts]
    expected = list(range(len(texts)))
    for _ in texts:
        for i, one in enumerate(sets):
            for j, other in enumerate(sets):
                if len(one & other) >= SIMILARITY * len(one | other):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert partition(near_duplicates(texts)) == partition(np.array(expected))


def synthetic(count, words_each=12):
    """Texts of random words, every tenth a copy of the one before it with a word more."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(3000)])
    drawn = words[rng.integers(len(words), size=(count, words_each))]
    texts = [" ".join(row) for row in drawn]
    for i in range(9, count, 10):
        texts[i] = texts[i - 1] + " more"
    return texts


@pytest.fixture(scope="module")
def many():
    return TrainingSet(tuple(sample(text, part=i % 300) for i, text in enumerate(synthetic(20_000))))


def test_twenty_thousand_examples_are_searched_for_near_duplicates(many):
    of = grouped(many, group_by="duplicates").of
    assert len(np.unique(of)) == 18_000
    assert (of[9::10] == of[8::10]).all()


def test_many_copies_of_one_text_are_one_group():
    texts = synthetic(3000) + ["the same story told again and again"] * 2000 + [f"the same story told again and again {i % 10}" for i in range(2000)]
    of = near_duplicates(texts)
    assert len(np.unique(of[3000:])) == 1
    assert len(np.unique(of[:3000])) == 2700


@pytest.mark.parametrize("options", [{}, {"group_by": "part"}, {"components": 100}])
def test_twenty_thousand_examples_are_grouped(many, options):
    groups = grouped(many, **options)
    assert groups.of.shape == (20_000,)
    assert (np.unique(groups.of) == np.arange(len(groups.labels))).all()
    assert len(groups.labels) == options.get("components", 300 if options else 20_000)


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_label_is_one_short_line(prompt, completion):
    label = short(Sample(prompt, completion))
    assert len(label) <= SHOWN
    assert len(label.splitlines()) <= 1


def test_a_long_prompt_leaves_room_for_a_short_completion():
    assert short(Sample("long " * 30, "rotten")).endswith("… → rotten")


MISTAKES = {
    "a column that is not there": ({"group_by": "topic"}, "group_by", "its columns are subject; cluster and duplicates need none"),
    "a column that is the same for all": ({"group_by": "same"}, "group_by", "all examples into one component"),
    "more components than examples": ({"components": 31}, "components", "is more than the 30 examples"),
    "more components than groups": ({"components": 4, "group_by": "subject"}, "components", "is more than the 3 groups"),
    "more clusters than examples": ({"components": 31, "group_by": "cluster"}, "components", "more than the 30 examples"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_field(subjects, mistake):
    options, field, words = MISTAKES[mistake]
    training = subjects
    if options.get("group_by") == "same":
        training = TrainingSet(tuple(sample(one.prompt, same=1) for one in subjects.samples))
    with pytest.raises(UserError) as caught:
        grouped(training, **options)
    assert caught.value.field == field
    assert words in str(caught.value)


def test_clusters_of_texts_without_words_are_refused():
    with pytest.raises(UserError, match="needs words"):
        grouped(TrainingSet(tuple(Sample("!", "?") for _ in range(4))), components=2)


def test_examples_of_the_same_words_do_not_make_one_component():
    same = TrainingSet(tuple(sample("one and the same", number=i) for i in range(6)))
    with pytest.raises(UserError, match="components: 3 puts all examples into one component"):
        grouped(same, components=3)


@pytest.mark.parametrize("column", ["cluster", "duplicates"])
def test_a_column_with_the_name_of_a_way_to_group_is_refused(column):
    training = TrainingSet(tuple(sample(f"film {i}", **{column: i % 2}) for i in range(6)))
    with pytest.raises(UserError, match="a way to group and also a column"):
        grouped(training, group_by=column)
