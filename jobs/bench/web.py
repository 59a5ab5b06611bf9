"""The web end of a service on this machine: how fast its page and its answers are while a run writes the store.

    python -m jobs.bench web [--quick]

A store with thousands of runs, one of which has 2,000 words and 10,000 interactions, and a service started by `raysp up`. One JSON line for each part, and a summary last:

- `page_ready_ms`: until the page of that run can be used (its table scrolls, a word can be switched off), in Chromium; `page_bytes` of its document, `toggle_ms` until a word that is switched off has its prediction,
- `predict_p95_ms`: a prediction by REST, of that run and of a small one,
- `list_p95_ms`: the list of runs,
- `sql_p95_ms`: a query, with 16 readers at once, while a run writes; `sql_alone_p95_ms` with one reader,
- `events_p95_ms`: from the scheduler's knowing of a change to a stream of server-sent events bringing it, and `events_longest_ms`,
- `report_bytes`: the self-contained file of that run.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from jobs.bench.rows import rounded, say, write
from raysp.game import Component, GameInfo, fingerprint
from raysp.report.page import write_report
from raysp.spectral.fourier import FourierSurrogate
from raysp.store import RunSurrogates, Store

WORDS, INTERACTIONS, TERMS, MEASURED = 2_000, 10_000, 6_000, 2_000
READERS = 16
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Events that are waited for, and how long.
EVENTS, EVENTS_SECONDS = 40, 60.0
QUERY = "SELECT labels, kind, value, lo, hi, exact FROM top_interactions LIMIT 100"
QUESTION = {
    "lens": {"kind": "feature", "prompt": "Her acting never fails to impress, and although the plot is thin the film is not bad at all", "target": " good", "dtype": "float32"},
    "explorer": {"kind": "proxyspex", "budget": 4000},
    "name": "writer",
}  # fmt: skip
SUMMARY = (
    "page_ready_ms", "toggle_ms", "page_bytes", "predict_p95_ms", "list_p95_ms", "sql_p95_ms", "sql_alone_p95_ms", "events_p95_ms", "events_longest_ms", "report_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A service and a client of it."""

    url: str
    token: str
    client: httpx.Client


def large_run(store: Store, words: int, interactions: int) -> None:
    """Store a finished run of this size, with a surrogate and measured masks."""
    rng = np.random.default_rng(0)
    text = [f"word{i}" for i in range(words)]
    starts = np.cumsum([0, *(len(word) + 1 for word in text[:-1])]).tolist()
    components = tuple(Component(i, word, "word", at, at + len(word), 1) for i, (word, at) in enumerate(zip(text, starts, strict=True)))
    about = {
        "lens": "feature",
        "unit": "word",
        "value": "logit_diff",
        "target": " yes",
        "foil": " no",
        "dtype": "float32",
        "ablation": "remove",
        "words": words,
    }
    info = GameInfo(fingerprint(about), components, about, source=" ".join(text))
    spec = {"lens": {"kind": "feature", "prompt": info.source, "target": " yes", "foil": " no"}, "explorer": {"kind": "proxyspex"}, "seed": 0}
    store.start_run("large", json.dumps(spec), info, lens="feature", explorer="proxyspex", seed=0, name="large")
    masks = rng.random((MEASURED, words)) < 0.5
    store.add_evaluations("large", "explore", masks[: MEASURED // 2], rng.normal(size=MEASURED // 2))
    store.add_evaluations("large", "validate", masks[MEASURED // 2 :], rng.normal(size=MEASURED // 2))
    sets = list({tuple(sorted(rng.choice(words, size, replace=False).tolist())) for size in rng.choice([2, 2, 3], 2 * interactions)})[:interactions]
    values = np.sort(np.abs(rng.normal(size=len(sets))))[::-1]
    tables = {
        "singles": pa.table({"component": pa.array(range(words), pa.int32()), "value": rng.normal(size=words), "method": ["surrogate"] * words}),
        "interactions": pa.table(
            {
                "components": pa.array(sets, pa.list_(pa.int32())), "index": ["fbii"] * len(sets), "value": values, "lo": values - 0.1, "hi": values + 0.1,
                "significant": values > 0.1, "kind": ["synergy", "redundancy"] * (len(sets) // 2), "estimate": values,
            }
        ),
    }  # fmt: skip
    found = FourierSurrogate.from_dict(words, {(): 0.0} | {(i,): float(value) for i, value in enumerate(rng.normal(size=words))} | {each: float(v) for each, v in zip(sets[: TERMS - words], values, strict=False)})  # fmt: skip
    summary = {"value_intact": 2.3, "value_empty": -0.4, "index": "fbii", "r2": 0.8, "r2_singles": 0.5, "verdict": "use with care", "reasons": []}
    store.finish_run("large", "done", summary, RunSurrogates(found, 0.5, masks[: MEASURED // 2]), **tables)


def small_runs(store: Store, count: int) -> None:
    """Store so many finished runs of six words."""
    rng = np.random.default_rng(1)
    for number in range(count):
        components = tuple(Component(i, f"w{i}", "word", 3 * i, 3 * i + 2, 1) for i in range(6))
        about = {"lens": "feature", "unit": "word", "value": "logit", "number": number}
        info, run_id = GameInfo(fingerprint(about), components, about, source="w0 w1 w2 w3 w4 w5"), f"small-{number:05}"
        spec = {"lens": {"kind": "feature", "prompt": info.source}, "explorer": {"kind": "proxyspex"}, "seed": number}
        store.start_run(run_id, json.dumps(spec), info, lens="feature", explorer="proxyspex", seed=number)
        store.add_evaluations(run_id, "explore", rng.random((20, 6)) < 0.5, rng.normal(size=20))
        table = pa.table(
            {"components": pa.array([[0, 1], [2, 3]], pa.list_(pa.int32())), "index": ["bii"] * 2, "value": rng.normal(size=2), "significant": [True] * 2}
        )
        store.finish_run(run_id, "done", {"value_intact": 1.0, "value_empty": 0.0, "r2": 0.9, "verdict": "reliable"}, interactions=table)


@contextmanager
def service(folder: Path) -> Generator[Served]:
    """A service of a home of its own, with the store that is in the folder."""
    from raysp.runtime import service as services
    from raysp.runtime.token import web_token

    os.environ["RAYSP_HOME"] = str(folder)
    os.environ.pop("RAY_ADDRESS", None)
    started, _ = services.up(store=str(folder / "raysp.duckdb"), port=0)
    try:
        token = web_token()
        with httpx.Client(base_url=f"{started.web}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=120) as client:
            while client.get("/health").status_code != 200:
                time.sleep(0.1)
            yield Served(str(started.web), token, client)
    finally:
        services.down()


def timed(call: Callable[[], Any], count: int) -> list[float]:
    """The milliseconds of so many calls."""
    found: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - began))
    return found


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def checked(response: httpx.Response) -> httpx.Response:
    """The response, unless it is an error."""
    response.raise_for_status()
    return response


def predictions(served: Served, count: int) -> dict[str, Any]:
    """Predictions of the large run, after the first, which reads its surrogate."""
    rng = np.random.default_rng(2)

    def one() -> None:
        checked(served.client.post("/runs/large/predict", json={"removed": rng.choice(WORDS, 5, replace=False).tolist()}))

    (first,) = timed(one, 1)
    found = timed(one, count)
    return {"part": "predict", "first_ms": first, "predict_ms": median(found), "predict_p95_ms": p95(found)}


def lists(served: Served, count: int) -> dict[str, Any]:
    """The list of runs."""
    found = timed(lambda: checked(served.client.get("/runs", params={"limit": 50})), count)
    return {"part": "list", "list_ms": median(found), "list_p95_ms": p95(found)}


def queries(served: Served, count: int, readers: int) -> list[float]:
    """The milliseconds of queries by so many readers at once."""

    def reader(_: int) -> list[float]:
        with httpx.Client(base_url=served.client.base_url, headers=served.client.headers, timeout=120) as client:
            return timed(lambda: checked(client.post("/sql", json={"query": QUERY})), count)

    with ThreadPoolExecutor(readers) as threads:
        return [each for found in threads.map(reader, range(readers)) for each in found]


class Stream:
    """Listens to all events, and notes how late each comes: versions are the microseconds at which the scheduler knew."""

    def __init__(self, served: Served) -> None:
        self._served, self.late, self._over, self._began = served, list[float](), threading.Event(), time.time_ns() // 1000
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with (
            httpx.Client(base_url=self._served.client.base_url, headers=self._served.client.headers, timeout=120) as client,
            client.stream("GET", "/events") as stream,
        ):
            for line in stream.iter_lines():
                if self._over.is_set():
                    return
                if line.startswith("id: ") and (version := int(line.removeprefix("id: "))) > self._began:  # the others are states of before
                    self.late.append((time.time_ns() / 1e3 - version) / 1e3)

    def close(self) -> None:
        """Stop listening, with the next event."""
        self._over.set()
        self._thread.join(30)


def page(served: Served) -> dict[str, Any]:
    """The page of the large run in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(base_url=served.url)
        page.goto("/login")
        page.fill("#token", served.token)
        page.press("#token", "Enter")
        page.wait_for_url("**/runs")
        sizes: list[int] = []
        page.on("response", lambda response: sizes.append(len(response.body())) if response.url.endswith("/runs/large") else None)
        began = time.perf_counter()
        page.goto("/runs/large")
        page.wait_for_function(READY)
        ready = 1000 * (time.perf_counter() - began)
        toggled = [float(page.evaluate(TOGGLE, number)) for number in range(20)]
        browser.close()
    return {"part": "page", "page_ready_ms": ready, "page_bytes": sizes[0], "toggle_ms": p95(toggled), "words": WORDS, "interactions": INTERACTIONS}


#: When the page of a run can be used, and how long a word takes that is switched off.
READY = "document.querySelectorAll('#all-interactions .vrow').length > 5 && document.querySelectorAll('#text .c').length > 1000"
TOGGLE = """number => {
  const began = performance.now();
  return new Promise((done) => {
    document.addEventListener("whatif", () => done(performance.now() - began), { once: true });
    document.dispatchEvent(new CustomEvent("whatif-set", { detail: { removed: [number] } }));
  });
}"""


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench web", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs in the store, and fewer requests")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    given = parser.parse_args()
    runs, count = (300, 60) if given.quick else (5_000, 400)
    found: dict[str, Any] = {"part": "summary", "stored_runs": runs}

    def note(row: dict[str, Any]) -> None:
        write(rounded(row), given.out)
        found.update({key: value for key, value in row.items() if key in SUMMARY})

    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        say("filling a store")
        with Store.open(folder / "raysp.duckdb") as store:
            large_run(store, WORDS, INTERACTIONS)
            small_runs(store, runs)
            write_report(store, "large", folder / "large.html")
        note({"part": "report", "report_bytes": (folder / "large.html").stat().st_size})
        say("starting a service")
        with service(folder) as served:
            note(page(served))
            say("with a run that writes")
            stream = Stream(served)
            writer = checked(served.client.post("/runs", json=QUESTION)).json()["runs"][0]["run_id"]
            while (served.client.get(f"/runs/{writer}").json().get("state") or {}).get("status") == "queued":
                time.sleep(0.2)
            note(predictions(served, count))
            note(lists(served, count))
            alone = queries(served, count, 1)
            many = queries(served, max(10, count // 4), READERS)
            note({"part": "sql", "readers": READERS, "sql_alone_p95_ms": p95(alone), "sql_ms": median(many), "sql_p95_ms": p95(many)})
            until = time.monotonic() + EVENTS_SECONDS
            while len(stream.late) < EVENTS and time.monotonic() < until:
                time.sleep(0.2)
            served.client.post(f"/runs/{writer}/cancel")
            stream.close()
            note(
                {
                    "part": "events",
                    "events": len(stream.late),
                    "events_ms": median(stream.late),
                    "events_p95_ms": p95(stream.late),
                    "events_longest_ms": max(stream.late),
                }
            )
    write(rounded(found), given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
