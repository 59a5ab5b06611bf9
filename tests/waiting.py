"""Waiting for what another process does."""

import time


def until(what, condition, seconds=120):
    """Wait until a condition holds, and return what it returns. `what` says in words what did not come."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found
