"""What ends a process from outside leaves a run that goes on later."""

import os
import signal
import subprocess
import sys
import threading

import pytest

import raysp
from raysp.interrupts import interrupted_by_termination, uninterrupted

RUN = """
import signal, sys, time
import raysp

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background starts without

def slow(masks):
    time.sleep(0.2)
    return masks.sum(axis=1) + 3.0 * masks[:, 0] * masks[:, 1]

def watch(progress):
    if progress.done:
        print("at work", flush=True)

lens = raysp.FunctionLens(slow, n=12, name="slow", batch_masks=8)
spec = raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=2000), local=sys.argv[1] == "local")
try:
    raysp.run(spec, run_id="the-run", watch=watch)
except (KeyboardInterrupt, raysp.InterruptedRunError) as error:
    print("told", error, flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize(("where", "sent"), [("local", signal.SIGTERM), ("local", signal.SIGINT), ("ray", signal.SIGTERM)])
def test_a_run_that_is_interrupted_names_the_command_that_resumes_it(where, sent, home):
    # Output goes into one pipe: Ray's trace of a signal would be seen here.
    with subprocess.Popen([sys.executable, "-c", RUN, where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)) as run:
        message = next((line for line in run.stdout if line == "at work\n"), None)
        assert message is not None
        run.send_signal(sent)
        rest = run.stdout.read()
    assert run.returncode == 130, rest
    assert "SIGTERM received" not in rest
    assert "told run the-run was interrupted; `raysp resume the-run` continues from what is stored" in rest
    with raysp.Store.read(home / "raysp.duckdb") as store:
        assert store.run_row("the-run")["status"] == {"local": "interrupted", "ray": "cancelled"}[where]
        assert store.run_evaluations("the-run").num_rows > 0


def test_the_answer_to_it_is_what_it_was_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with interrupted_by_termination():
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == before


def test_beside_the_main_thread_nothing_is_done():
    found = []

    def enter():
        with interrupted_by_termination():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_waits_for_what_must_happen_completely(sent):
    done = []

    def work():
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(sent)
                done.append("inner")
            done.append("outer")

    before = [signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert done == ["inner", "outer"]
        assert signal.getsignal(sent) is signal.default_int_handler
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)


def test_a_signal_that_ends_the_process_at_once_still_does():
    code = "import signal\nfrom raysp.interrupts import uninterrupted\nwith uninterrupted():\n    signal.raise_signal(signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM
