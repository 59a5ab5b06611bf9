"""An example is the tokens of its whole text, split where its answer begins; what is too long loses the beginning of its prompt, and a note states it."""

import numpy as np
import pytest
from tiny_models import save

from raysp.datasets.training_sets import Sample
from raysp.errors import UserError
from raysp.lenses.encoding import encode, encode_queries, encode_query
from raysp.models.loading import load
from raysp.specs.lenses import DataLens, ModelOptions

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
SAMPLE = Sample("the film", "was not bad")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load(ModelOptions(model=save("llama", tmp_path_factory.mktemp("plain"))))


@pytest.fixture(scope="module")
def begins(tmp_path_factory):
    found = load(ModelOptions(model=save("llama", tmp_path_factory.mktemp("begins"), begins=True)))
    found.tokenizer.chat_template = CHAT
    return found


def lens(**options):
    return DataLens(train="unread", **options)


def halves(loaded, text):
    return loaded.tokenizer.decode(text.ids[: text.first]), loaded.tokenizer.decode(text.ids[text.first :])


def one(loaded, sample=SAMPLE, **options):
    return encode(loaded, lens(**options), [sample]).texts[0]


def test_an_example_is_the_tokens_of_its_whole_text_and_the_end(loaded):
    found = one(loaded, Sample("the fi", " lm"))
    prompt, whole = (loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the fi", "the fi lm"))
    assert found.ids.tolist() == [*whole, loaded.tokenizer.eos_token_id]
    assert found.first == len(prompt)
    assert found.ids.dtype == np.int64


@pytest.mark.parametrize(
    ("prompt", "completion", "template", "seam"),
    [
        ("the film", "was", "{prompt}", ("the film", " was")),
        ("the film ", "was", "{prompt}", ("the film", " was")),
        ("the film", " was", "{prompt}", ("the film", " was")),
        ("the film", "was", "Q: {prompt}\n", ("Q: the film\n", "was")),
        ("the film", "was", "Q: {prompt}\nA:", ("Q: the film\nA:", " was")),
    ],
)
def test_a_space_goes_between_where_neither_side_has_one(loaded, prompt, completion, template, seam):
    asked = encode_query(loaded, lens(template=template), Sample(prompt, completion))
    assert halves(loaded, asked.texts[0]) == seam
    assert asked.answers == (completion if prompt.endswith(" ") else seam[1],)


def test_examples_end_with_the_end_of_sequence_and_queries_do_not(loaded):
    end = loaded.tokenizer.eos_token_id
    assert one(loaded).ids[-1] == end
    assert end not in encode_query(loaded, lens(), SAMPLE).texts[0].ids


def test_the_beginning_of_sequence_is_where_the_tokenizer_puts_it(loaded, begins):
    start = begins.tokenizer.bos_token_id
    assert one(begins).ids.tolist() == [start, *one(loaded).ids.tolist()]
    assert one(begins).first == one(loaded).first + 1


def test_an_empty_prompt_is_a_token_that_begins_a_text(loaded):
    found = one(loaded, Sample("", "was"))
    assert found.first == 1
    assert halves(loaded, found) == ("<s>", "was</s>")


def test_a_chat_is_in_the_models_template_without_further_special_tokens(begins):
    assert halves(begins, one(begins, template="Say: {prompt}", chat=True)) == ("<user>Say: the film</><assistant>", "was not bad</s>")


def test_messages_go_through_the_template_as_they_are(begins):
    talk = Sample("user: x", "fine", messages=({"role": "system", "content": "be good"}, {"role": "user", "content": "hi"}))
    assert halves(begins, one(begins, talk)) == ("<system>be good</><user>hi</><assistant>", "fine</s>")


def test_a_long_text_loses_the_beginning_of_its_prompt(loaded):
    long = Sample("word " * 40 + "at the end", "was not bad")
    whole = one(loaded, long)
    cut = one(loaded, long, max_tokens=20)
    assert len(cut.ids) == 20
    assert cut.ids.tolist() == whole.ids[-20:].tolist()
    assert cut.ids[cut.first :].tolist() == whole.ids[whole.first :].tolist()
    assert encode(loaded, lens(max_tokens=20), [long, SAMPLE, SAMPLE]).notes == ("1 of 3 examples were cut to 20 tokens",)


def test_what_begins_a_text_stays_when_its_prompt_is_cut(begins):
    cut = one(begins, Sample("word " * 40, "was"), max_tokens=20)
    assert cut.ids[0] == begins.tokenizer.bos_token_id
    assert len(cut.ids) == 20


def test_an_answer_too_long_by_itself_loses_its_end(loaded):
    long = Sample("the film", "was not bad " * 20)
    whole, cut = one(loaded, long), encode(loaded, lens(max_tokens=10), [long, Sample("film", "x")]).texts[0]
    assert (len(cut.ids), cut.first) == (10, 1)
    assert cut.ids.tolist() == whole.ids[whole.first - 1 : whole.first + 9].tolist()


def test_the_model_reads_no_more_than_it_can_and_it_is_reported(loaded):
    found = encode(loaded, lens(max_tokens=1000), [Sample("word " * 300, "was")])
    assert len(found.texts[0].ids) == 256
    assert found.notes == ("max_tokens is 256, the longest input of the model", "1 of 1 examples were cut to 256 tokens")


def test_a_querys_texts_are_its_answer_then_its_foil_behind_one_prompt(loaded):
    asked = encode_query(loaded, lens(), Sample("the film", "was not bad", foil="was good"))
    assert asked.answers == (" was not bad", " was good")
    assert [halves(loaded, text) for text in asked.texts] == [("the film", " was not bad"), ("the film", " was good")]


def test_a_querys_texts_are_its_label_then_the_others(loaded):
    sample = Sample("the film", "good", label="good")
    assert encode_query(loaded, lens(), sample, ("bad", "fine", "good")).answers == (" good", " bad", " fine")


@pytest.mark.parametrize("value", ["logprob", "logprob_mean", "loss"])
def test_values_of_the_answer_alone_ask_for_nothing_else(loaded, value):
    assert len(encode_query(loaded, lens(value=value), Sample("the film", "good", "bad", "good"), ("bad", "good")).texts) == 1


@pytest.mark.parametrize(("value", "other"), [(None, " bad"), ("class_margin", " bad"), ("margin", " awful")])
def test_labels_are_compared_even_where_there_is_a_foil_unless_the_margin_over_it_is_asked_for(loaded, value, other):
    assert encode_query(loaded, lens(value=value), Sample("x", "good", "awful", "good"), ("bad", "good")).answers == (" good", other)


def test_answers_of_one_query_share_a_prompt_that_leaves_room_for_the_longest(loaded):
    (asked,), notes = encode_queries(loaded, lens(max_tokens=24), [Sample("word " * 40, "bad", foil="was not bad at all")])
    assert asked.cut
    assert notes == ("1 of 1 queries were cut to 24 tokens",)
    first, second = asked.texts
    assert first.first == second.first
    assert first.ids[: first.first].tolist() == second.ids[: second.first].tolist()
    assert len(second.ids) == 24


MISTAKES = {
    "a template without the prompt": (SAMPLE, {"template": "Review:"}, "template", "{prompt}"),
    "a template around conversations": (
        Sample("x", "y", messages=({"role": "user", "content": "x"},)),
        {"template": "Q: {prompt}"},
        "template",
        "are conversations",
    ),
    "a chat without a template": (SAMPLE, {"chat": True}, "chat", "no chat template"),
    "conversations without a template": (Sample("x", "y", messages=({"role": "user", "content": "x"},)), {}, "chat", "no chat template"),
    "nothing left of any prompt": (Sample("the film " * 5, "was not bad " * 20), {"max_tokens": 10}, "max_tokens", "leaves nothing of any example's prompt"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_field(loaded, mistake):
    sample, options, field, words = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        encode(loaded, lens(**options), [sample])
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_foil_that_is_the_answer_is_refused(loaded):
    with pytest.raises(UserError, match="queries row 3, foil: 'was not bad' is equal to the completion"):
        encode_query(loaded, lens(), Sample("the film", "was not bad", foil="was not bad", row=3))


def test_a_conversation_that_the_template_refuses_is_one_line(begins):
    begins.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match=r"do not fit the model's chat template .*roles must alternate"):
        one(begins, Sample("x", "y", messages=({"role": "user", "content": "x"},) * 2))
    begins.tokenizer.chat_template = CHAT


TOOLED = (
    "{% if tools %}<tools>{{ tools | tojson }}</>{% endif %}{% for m in messages %}<{{ m['role'] }}>{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls %}<call>{{ call.function | tojson }}</call>{% endfor %}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"days": 2}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
ASKED = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"})


@pytest.fixture
def tooled(begins, monkeypatch):
    monkeypatch.setattr(begins.tokenizer, "chat_template", TOOLED)
    return begins


def rendered(loaded, messages, **options):
    return loaded.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)


@pytest.mark.parametrize("content", ["", None])
def test_a_conversation_with_tools_is_what_its_chat_template_gives(tooled, content):
    talk = (*ASKED, {"role": "assistant", "content": content, "tool_calls": [CALL]}, {"role": "tool", "content": "rain"})
    found = encode(tooled, lens(), [Sample("", "Wet.", messages=talk, tools=tuple(TOOLS))])
    prompt = rendered(tooled, talk, tools=TOOLS, add_generation_prompt=True)
    assert halves(tooled, found.texts[0]) == (prompt, "Wet.</s>")
    assert '<call>{"name": "weather", "arguments": {"days": 2}}</call>' in prompt
    assert not any("not used" in note for note in found.notes)


@pytest.mark.parametrize("content", ["", None, "Let me see. "])
def test_an_answer_that_calls_tools_is_written_by_the_chat_template(tooled, content):
    answer = {"role": "assistant", "content": content, "tool_calls": [CALL]}
    found = encode(tooled, lens(), [Sample("", "a call", messages=ASKED, tools=tuple(TOOLS), answer=answer)]).texts[0]
    assert halves(tooled, found) == (
        rendered(tooled, ASKED, tools=TOOLS, add_generation_prompt=True),
        (content or "") + '<call>{"name": "weather", "arguments": {"days": 2}}</call></s>',
    )


def test_what_a_chat_template_does_not_write_is_named_once(begins):
    talk = (*ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "rain"})
    found = encode(begins, lens(), [Sample("", "Wet.", messages=talk, tools=tuple(TOOLS))] * 2)
    assert [note for note in found.notes if "not used" in note] == [
        "not used: tools, which the model's chat template does not write",
        "not used: tool_calls of messages, which the model's chat template does not write",
    ]
    assert "None" not in halves(begins, found.texts[0])[0]
    with pytest.raises(UserError, match=r"messages, row 4: 'a call' calls tools, which the model's chat template does not write"):
        encode(begins, lens(), [Sample("", "a call", messages=ASKED, row=4, answer={"role": "assistant", "content": "", "tool_calls": [CALL]})])


def test_a_system_prompt_goes_first_in_a_chat(begins):
    found = one(begins, Sample("the film", "good", system="Be brief."), chat=True)
    assert halves(begins, found)[0] == "<system>Be brief.</><user>the film</><assistant>"
