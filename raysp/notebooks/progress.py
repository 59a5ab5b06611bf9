"""The progress of runs as one line of a notebook, updated while they are under way. Everywhere else nothing is shown."""

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from raysp.runs.progress import ENDED, Progress, SetProgress, Watch, WatchAll, bar_text

#: The least time between two updates; a new phase is shown at once.
UPDATE_SECONDS = 0.25


@contextmanager
def watching(watch: Watch | None) -> Generator[Watch | None]:
    """The given watch; without one, a line in the output of the cell if this is a notebook, else None."""
    if watch is not None or not in_notebook():
        yield watch
        return
    line = Line()
    try:
        yield line
    finally:
        line.close()


@contextmanager
def watching_all(labels: Sequence[str]) -> Generator[WatchAll | None]:
    """As `watching`, of several runs with these labels, shown as one."""
    together = SetProgress(list(labels))
    with watching(None) as line:
        yield None if line is None else lambda number, progress: line(together.observe(number, progress))


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows HTML and replaces it."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


class Line:
    """One line in the output of a cell."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._at, self._phase = 0.0, ""
        self._warnings: dict[str, None] = {}
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Show this progress, unless something was shown a moment ago."""
        self._last = progress
        self._warnings |= dict.fromkeys(progress.warnings)
        now = time.monotonic()
        if now - self._at > UPDATE_SECONDS or progress.phase != self._phase:
            self._at, self._phase = now, progress.phase
            self._show(line_html(progress, list(self._warnings)))

    def close(self) -> None:
        """Leave the last state that was told."""
        if self._last is not None:
            self._show(line_html(self._last, list(self._warnings)))

    def _show(self, html: str) -> None:
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))


def line_html(progress: Progress, warnings: Sequence[str]) -> str:
    """Progress as HTML without scripts: the run, a bar while it is under way, the phase and the figures."""
    bar = f'<progress max="{progress.total}" value="{progress.done}"></progress> ' if progress.total and progress.phase not in ENDED else ""
    told = " · ".join(escape(text) for text in (progress.phase, bar_text(progress)) if text)
    noted = "".join(f"<div><b>warning:</b> {escape(text)}</div>" for text in warnings)
    return f'<div role="status">{noted}<code>{escape(progress.run_id)}</code> {bar}{told}</div>'
