"""Components are what a person would call words, sentences or paragraphs; leaving some out reads as if they had never been typed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.errors import UserError
from raysp.lenses.segmentation import segment
from raysp.specs.lenses import FeatureLens


def pieces(prompt, unit, **options):
    return segment(FeatureLens(prompt=prompt, unit=unit, **options)).pieces


def without(prompt, unit, removed, replacement=None, **options):
    found = segment(FeatureLens(prompt=prompt, unit=unit, **options))
    mask = np.ones((1, len(found.spans)), bool)
    mask[0, removed] = False
    return found.without(mask, replacement)[0]


def test_words_keep_their_punctuation():
    assert pieces(" It fails,  never!\n", "word") == ["It", "fails,", "never!"]


def test_words_are_joined_by_one_space():
    assert without("It  fails,\nnever twice", "word", [1]) == "It never twice"
    assert without("one two", "word", [0, 1]) == ""


def test_sentences_end_at_their_marks_and_not_at_abbreviations():
    text = 'Dr. Smith met J. Doe at 3.5 p.m. today. "Really?" he asked! Yes… No\nA heading\nEnd'
    assert pieces(text, "sentence") == ["Dr. Smith met J. Doe at 3.5 p.m.", "today.", '"Really?"', "he asked!", "Yes…", "No", "A heading", "End"]


SENTENCES = {
    "Chinese": ["你好。", "我很好！", "「真的？」", "他说３．５米．", "是的。"],
    "Chinese with Latin marks": ["你好!", "我很好?", "价格是3.5元.", "是。"],
    "Japanese": ["今日は晴れです。", "本当ですか？", "はい｡", "行こう‼"],
    "Hindi": ["राम घर गया।", "सीता कहाँ है?", "वह आई॥", "क्या बात है!"],
    "Arabic": ["هل أنت بخير؟", "نعم.", "أين هو؟!"],
    "Urdu": ["وہ گھر گیا۔", "کیوں؟"],
    "Amharic": ["ሰላም።", "እንዴት ነህ፧"],
    "Armenian": ["Բարեւ։", "Ինչպես ես։"],
    "Burmese": ["မင်္ဂလာပါ။", "နေကောင်းလား။"],
    "Khmer": ["សួស្តី។", "សុខសប្បាយទេ។"],
}


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("between", ["", " ", "\n\n"])
def test_sentences_of_any_script_end_at_their_marks(language, between):
    sentences = SENTENCES[language]
    if between == "" and language == "Arabic":
        sentences = [sentence for sentence in sentences if not sentence.endswith(".")]  # a Latin full stop needs a space where words have them
    if between == "" and language == "Hindi":
        sentences = sentences[:1] + sentences[2:]
    assert pieces(between.join(sentences), "sentence") == sentences


@given(st.text(alphabet='a我 \n.。!?؟।"」', min_size=1))
def test_nothing_is_lost_between_sentences(text):
    try:
        found = segment(FeatureLens(prompt=text, unit="sentence"))
    except UserError:
        return
    everything = np.ones((1, len(found.spans)), bool)
    assert found.without(everything)[0].split() == text.split()
    whole, spans = found.whole()
    assert whole == found.without(everything)[0]
    assert [whole[start:stop] for start, stop in spans] == found.pieces


def test_sentences_keep_what_stands_between_them():
    assert without("你好。我很好！再见。", "sentence", [1]) == "你好。再见。"
    text = "One. Two.\n\nThree. Four."
    assert without(text, "sentence", []) == text
    assert without(text, "sentence", [1]) == "One.\n\nThree. Four."
    assert without(text, "sentence", [2]) == "One. Two.\n\nFour."
    assert without(text, "sentence", [1, 2]) == "One.\n\nFour."
    assert without(text, "sentence", [0, 3]) == "Two.\n\nThree."
    assert without(text, "sentence", [1], "...") == "One. ...\n\nThree. Four."
    assert without(text, "sentence", [0, 1, 2, 3]) == ""


def test_lines_and_paragraphs_are_joined_as_they_were_typed():
    text = "One.\nTwo.\n\n \nThree.\n"
    assert pieces(text, "line") == ["One.", "Two.", "Three."]
    assert pieces(text, "paragraph") == ["One.\nTwo.", "Three."]
    assert without(text, "line", [1]) == "One.\nThree."
    assert without(text + "\n\nFour", "paragraph", [1]) == "One.\nTwo.\n\nFour"


def test_a_delimiter_is_put_back_as_it_was_between_the_pieces():
    assert pieces("red, green ,blue,,", "delimiter", delimiter=",") == ["red", "green", "blue"]
    assert without("red, green, blue, grey", "delimiter", [1], delimiter=",") == "red, blue, grey"


def test_spans_leave_the_text_between_them_alone():
    text = "The good, old film"
    spans = json.dumps([[4, 8], [10, 13]])
    assert pieces(text, "spans", spans=spans) == ["good", "old"]
    assert without(text, "spans", [], spans=spans) == text
    assert without(text, "spans", [1], spans=spans) == "The good, film"
    assert without(text, "spans", [0, 1], spans=spans) == "The , film"
    assert without(text, "spans", [1], "new", spans=spans) == "The good, new film"


def test_spans_at_the_edges_leave_no_blanks_behind():
    spans = "[[0, 3], [4, 7]]"
    assert without("one two", "spans", [0], spans=spans) == "two"
    assert without("one two", "spans", [1], spans=spans) == "one"
    assert without("one two", "spans", [0, 1], spans=spans) == ""


def test_spans_come_from_a_file_too(tmp_path):
    path = tmp_path / "spans.json"
    path.write_text("[[0, 3], [4, 7]]")
    assert pieces("one two", "spans", spans=str(path)) == ["one", "two"]


def test_a_replacement_stands_where_the_piece_stood():
    assert without("one two three", "word", [1], "...") == "one ... three"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": " \n"}, "prompt: .* is empty"),
        ({"prompt": "word"}, "prompt: 'word' has one component with unit word"),
        ({"prompt": "No end", "unit": "sentence"}, "one component"),
        ({"prompt": "a b", "unit": "delimiter"}, "delimiter: is needed"),
        ({"prompt": "a b", "unit": "spans"}, "spans: is needed"),
        ({"prompt": "a b", "unit": "spans", "spans": "[[0, 9], [10, 11]]"}, "outside the prompt"),
        ({"prompt": "a b", "unit": "spans", "spans": "[[0, 1], [1, 2]]"}, "holds no text"),
        ({"prompt": "a b", "unit": "spans", "spans": "[[0, 2], [1, 3]]"}, "overlap"),
        ({"prompt": "a b", "unit": "spans", "spans": "[0, 1"}, "not a JSON list"),
        ({"prompt": "a b", "unit": "spans", "spans": "nowhere.json"}, "neither a JSON list nor a file"),
    ],
)
def test_what_cannot_be_cut_is_reported(options, message):
    with pytest.raises(UserError, match=message):
        segment(FeatureLens(**options))
