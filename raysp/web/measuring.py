"""Exact values that were asked for: each set is measured once, however many ask for it, and a request does not have to wait for a long training."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from raysp.masks import Masks, pack
from raysp.web.desk import Desk

#: Measurements under way at the same time; each waits for evaluators.
TOGETHER = 8
#: How long a request waits for its measurement before it is told to ask again.
WAIT_SECONDS = 20.0


class Measuring:
    """Measurements under way, by run and masks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._threads = ThreadPoolExecutor(TOGETHER, "measure")
        self._under_way: dict[tuple[str, bytes], Future[None]] = {}
        self._lock = threading.RLock()  # a measurement may end before it is known here

    async def measure(self, run_id: str, masks: Masks, seconds: float = WAIT_SECONDS) -> bool:
        """Measure masks (bool, `(k, n)`) of a run; False if that takes longer than `seconds`, and goes on. Raises what the service raises."""
        future = self._begin(run_id, masks)
        finished = asyncio.Event()
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(finished.set))
        try:
            async with asyncio.timeout(seconds):
                await finished.wait()
        except TimeoutError:
            return False
        future.result()
        return True

    def _begin(self, run_id: str, masks: Masks) -> "Future[None]":
        key = (run_id, pack(masks).tobytes())
        with self._lock:
            found = self._under_way.get(key)
            if found is None:
                found = self._under_way[key] = self._threads.submit(self._desk.measure, run_id, masks)
                found.add_done_callback(lambda _: self._end(key))
            return found

    def _end(self, key: tuple[str, bytes]) -> None:
        with self._lock:
            self._under_way.pop(key, None)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
