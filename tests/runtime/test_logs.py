"""Log lines: one JSON object each, with what an operator needs and nothing of a question."""

import json
import logging

import pytest
from ray.exceptions import GetTimeoutError

import raysp
from raysp.runtime.logs import JsonLines, log_to_stderr, reason_of


def line(message, *arguments, error=None, **extra):
    record = logging.getLogger("raysp.runtime.test").makeRecord("raysp.runtime.test", logging.WARNING, "file", 1, message, arguments, None, extra=extra)
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    text = JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_says_when_how_bad_where_what_and_about_what():
    found = line("lease %s", "lost", run="r", lease=3, other="not a field")
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "WARNING", "logger": "raysp.runtime.test", "message": "lease lost", "run": "r", "lease": 3}


def test_an_exception_is_one_field_with_its_places_and_without_its_message():
    with pytest.raises(KeyError) as caught:
        {}["a prompt\nof two lines"]
    found = line("the loop goes on", error=caught.value)["exception"]
    assert found.startswith("KeyError (test_logs.py:")
    assert "prompt" not in found


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (raysp.UserError("target", " a prompt", "has 3 tokens, ' a', ' prom', 'pt'", "give one"), "UserError about target"),
        (raysp.UserError("store", "/s.duckdb", "is locked: process 7 has it open", "wait"), "store: '/s.duckdb' is locked: process 7 has it open; wait"),
        (raysp.EvaluationError("the value without 'prompt' is not a number"), "EvaluationError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (GetTimeoutError("It did not answer.\nFor long."), "GetTimeoutError: It did not answer."),
    ],
)
def test_the_reason_is_the_kind_of_an_error_and_its_message_where_that_is_about_the_system(error, reason):
    assert reason_of(error) == reason


@pytest.fixture
def logger():
    """The package's logger, as it was before when the test is over."""
    found = logging.getLogger("raysp")
    before = found.level, list(found.handlers)
    yield found
    found.level, found.handlers = before


@pytest.mark.parametrize(("level", "events"), [(None, ["run started", "run lost"]), ("warning", ["run lost"]), ("nonsense", ["run started", "run lost"])])
def test_a_process_writes_each_line_once_from_the_level_that_is_wanted(logger, level, events, monkeypatch, capsys):
    monkeypatch.delenv("RAYSP_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("RAYSP_LOG_LEVEL", level)
    log_to_stderr()
    log_to_stderr()
    child = logging.getLogger("raysp.runtime.test")
    child.debug("lease begun")
    child.info("run started")
    child.warning("run lost")
    told = capsys.readouterr()
    assert (told.out, [json.loads(text)["message"] for text in told.err.splitlines()]) == ("", events)


def test_tokens_and_passwords_in_a_line_are_masked():
    assert line("store opened", store="s3://me:secret@there/x")["store"] == "s3://***@there/x"
