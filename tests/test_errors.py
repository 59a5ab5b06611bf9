"""Errors are one line of a few characters, without secrets."""

import pytest

from raysp.errors import UserError, masked
from raysp.specs.run import RunSpec, run_spec

TOKEN = "hf_" + "aB3" * 10

SECRETS = {
    "a password in a URL": ("https://user:secret@host/model", "https://***@host/model"),
    "a token in a URL": (f"https://{TOKEN}@huggingface.co/a/b", "https://***@huggingface.co/a/b"),
    "a parameter of a URL": ("https://host/a?x=1&access_token=secret&y=2", "https://host/a?x=1&access_token=***&y=2"),
    "a token of the hub": (f"model {TOKEN} is", "model *** is"),
    "a token of GitHub": ("ghp_" + "a1" * 18, "***"),
    "a key of a service": ("sk-proj-" + "a1" * 18, "***"),
}
HARMLESS = ("https://host/a@b?page=2", "someone@example.org", "hf:owner/name:train", "hf_model", "sk-learn", "task: a-b", "2026-11-28", "tokens=5")


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_masked(name):
    text, shown = SECRETS[name]
    assert masked(text) == shown
    assert shown in str(UserError("model", text, "is nowhere", "give another"))


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay_as_they_are(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    ("field", "lens"),
    [
        ("model", {"kind": "feature", "prompt": "a b", "model": f"https://{TOKEN}@host/model"}),
        ("train", {"kind": "data", "train": "https://user:secret@host/rows.jsonl"}),
    ],
)
def test_a_spec_that_names_a_secret_is_refused_without_showing_it(field, lens):
    with pytest.raises(UserError, match=rf"^{field}: .*\*\*\*@host.* holds a password or a token") as caught:
        run_spec({"lens": lens})
    with pytest.raises(ValueError, match="holds a password or a token") as of_pydantic:
        RunSpec(lens=lens)
    for error in (caught.value, of_pydantic.value):
        assert "secret" not in str(error)
        assert TOKEN[:8] not in str(error)


def test_a_prompt_may_hold_what_looks_like_a_secret():
    assert RunSpec(lens={"kind": "feature", "prompt": f"my token {TOKEN}"}).lens.prompt.endswith(TOKEN)


@pytest.mark.parametrize("value", [10**5000, "a" * 5000, [["x"] * 1000] * 1000], ids=["number", "text", "list"])
def test_a_value_of_any_size_is_shown_in_a_few_characters(value):
    assert len(str(UserError("seed", value, "is not valid", "give another"))) < 150
