"""Hundreds of command lines with a mistake in them, or at a limit: each ends with 0, 1 or 2, and a mistake is one line."""

import os
import shlex
import subprocess
import sys

import pytest
from command_line import process
from command_lines import COMMANDS
from hostile_files import furnish

#: One in so many lines of every group is tried; all are by `make fuzz`.
STEP = int(os.environ.get("RAYSP_FUZZ_STEP", "8"))
#: Lines that ended the process with a signal once; each has a process of its own.
CRASHED = (
    "mechanistic --model llama --device cpu --local --prompts null.jsonl --target a",
    "data --model llama --device cpu --local --train null.json",
    "feature --model llama --device cpu --local --prompt 'a b' --target a --threads 100000",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return furnish(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def run(place, cli, monkeypatch):
    """Run a command line in the folder of hostile files."""
    monkeypatch.setenv("RAYSP_HOME", str(place))
    monkeypatch.chdir(place)
    return lambda line: cli(*shlex.split(line))


@pytest.mark.parametrize("group", COMMANDS)
def test_a_mistake_is_one_line_and_exit_code_1_or_2(run, group):
    lines = COMMANDS[group]
    for line in lines[::STEP]:
        code, out, err = run(line)
        assert code in (0, 1, 2), line
        if code and line:  # without arguments, the help is shown
            assert len(err.splitlines()) == 1, f"{line}\n{err}"
            assert out == "" or line.startswith(("report", "task")), line
            assert not any(character < " " for character in err[:-1]), line


@pytest.mark.parametrize("line", CRASHED)
def test_what_crashed_the_interpreter_is_one_line(place, line):
    code, _, err = process(*shlex.split(line), home=place)
    assert (code, len(err.splitlines())) == (2, 1), err


def test_an_argument_that_is_not_utf_8_is_one_line(place):
    for arguments in (["sql", b"SELECT '\xff'"], ["feature", "--prompt", "a b", "--target", b"caf\xe9", "--local"]):
        code, out, err = process(*arguments, home=place)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert "is not valid UTF-8" in err


@pytest.mark.parametrize("redirection", ["| head -c 1", "> /dev/full"])
def test_a_closed_pipe_and_a_full_disk_end_without_a_traceback(place, redirection):
    command = f"{sys.executable} -m raysp sql 'SELECT range FROM range(100000)' --format csv {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "RAYSP_HOME": str(place)}, check=False, cwd=place)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == ("full" in redirection), done.stderr


def test_a_terminal_that_is_not_unicode_shows_escapes(place):
    code, out, _ = process("sql", "SELECT '−🙂' AS x", home=place, PYTHONIOENCODING="ascii")
    assert code == 0
    assert "\\u2212" in out
