"""SPEX by raysp and by spectralexplain on planted sums at several levels of noise: the share of terms recovered, and seconds."""

import contextlib
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from jobs.bench.engine_games import BenchGame, Terms, fourier_sum, scattered_terms
from jobs.bench.engine_methods import asked_findings, explorer
from jobs.bench.engine_peers import MAX_ORDER, package, quiet
from raysp.errors import UserError
from raysp.masks import Masks, Values

#: A planted term counts as found with its sign and at least this share of its size; another one as false above this size, half the least planted.
FOUND, FALSE = 0.5, 0.5
METHODS = ("raysp soft", "raysp hard", "spectralexplain soft", "spectralexplain hard")
#: Takes minutes at 10 dB.
SLOW = "spectralexplain soft"
#: Seconds of processor time after which a peer's decoding is stopped, unless others are asked for: the same on a busy machine as on an idle one.
TIME_LIMIT = 600


@dataclass(frozen=True)
class Planting:
    """Number of interacting components and of all components, the design's b, the noise levels (dB; None for none), and the methods too slow to run."""

    n: int
    terms: int
    b: int
    levels: tuple[float | None, ...]
    methods: tuple[str, ...] = METHODS


#: The full case; the small one is without the peer, whose algebra alone takes half a minute to compile.
FULL = Planting(1000, 100, 8, (None, 10.0, 5.0, 0.0))
QUICK = Planting(64, 20, 5, (None, 10.0), ("raysp soft", "raysp hard"))


def noisy(terms: Terms, level: float | None, seed: int) -> Callable[[Masks], Values]:
    """The planted sum with normal noise, fresh for every evaluation, `level` dB below its variance."""
    rng, exact = np.random.default_rng(seed), fourier_sum(terms)
    variance = sum(c**2 for s, c in terms.items() if s)
    deviation = 0.0 if level is None else float(np.sqrt(variance / 10 ** (level / 10)))
    return lambda masks: exact(masks) + deviation * rng.normal(size=len(masks))


def planted(planting: Planting, level: float | None, seed: int) -> tuple[Terms, BenchGame]:
    """The terms and the game."""
    terms = scattered_terms(planting.n, planting.terms, seed, MAX_ORDER)
    return terms, BenchGame(f"spex-{planting.n}", "spex", planting.n, noisy(terms, level, seed), ())


def judged(terms: Terms, found: Terms) -> dict[str, Any]:
    """Share of planted terms found, number of false ones, and the largest error of a coefficient."""
    right = sum(found.get(s, 0.0) * c >= FOUND * c * c for s, c in terms.items())
    false = sum(abs(c) > FALSE for s, c in found.items() if s and s not in terms)
    error = max(abs(found.get(s, 0.0) - terms.get(s, 0.0)) for s in {*terms, *found})
    return {"recovery": right / len(terms), "false": int(false), "largest_error": float(error)}


def ours(planting: Planting, game: BenchGame, decoder: str, seed: int) -> tuple[Terms, float, int]:
    """The findings of raysp's SPEX: terms, seconds including the design but not the game, evaluations."""
    started = explorer("SPEX", max_order=MAX_ORDER, b=planting.b, decoder=decoder).start(planting.n, seed)
    findings, seconds, evaluations = asked_findings(started, game)
    return findings.surrogate.terms(), seconds, evaluations


class TimeLimitError(Exception):
    """A peer that was stopped."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Generator[None]:
    """Raise TimeLimitError once the block has taken this much processor time; only in the main thread, on systems with such alarms."""
    reached = False

    def stop(*_: object) -> None:
        nonlocal reached
        reached = True
        raise TimeLimitError(f"stopped at the time limit of {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    except Exception as error:
        # Interrupted compiled code raises an error of its own instead.
        if reached and not isinstance(error, TimeLimitError):
            raise TimeLimitError from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def theirs(planting: Planting, game: BenchGame, decoder: str, seed: int, limit: int = TIME_LIMIT) -> tuple[Terms, float, int]:
    """The findings of spectralexplain's SPEX: terms, seconds of the decoding alone, evaluations. TimeLimitError if decoding takes too long."""
    library = package("spectralexplain")
    with quiet():
        np.random.seed(seed)  # noqa: NPY002  its design is drawn from the global generator
        sampled, counts = library.sampling_strategy(game, planting.b, planting.b, planting.n, None, t=MAX_ORDER)
        began = time.perf_counter()
        with time_limit(limit):
            found = library.support_recovery(decoder, sampled, planting.b, MAX_ORDER)
        seconds = time.perf_counter() - began
    return {tuple(np.flatnonzero(s).tolist()): float(c) for s, c in found.items()}, seconds, int(counts[planting.b])


def tasks(planting: Planting, seeds: int) -> Iterator[dict[str, Any]]:
    """What names each row. The slow peer decoder runs with one seed, after all others."""
    for slow in (False, True):
        for level in planting.levels:
            for method in planting.methods:
                if (method == SLOW) == slow:
                    for seed in range(1 if slow else seeds):
                        yield {"row": "spex", "game": f"spex-{planting.n}", "method": method, "snr_db": level, "seed": seed, "budget": None}


@cache
def warm(who: str, decoder: str, n: int) -> None:
    """Run a small case over the same field once per process, because the algebra is compiled on first use."""
    small = Planting(n, 5, 4, ())
    with contextlib.suppress(UserError, AssertionError):
        decoded(who, small, planted(small, None, 0)[1], decoder, 0)


def decoded(who: str, *arguments: Any, limit: int = TIME_LIMIT) -> tuple[Terms, float, int]:
    """What ours or theirs finds."""
    return ours(*arguments) if who == "raysp" else theirs(*arguments, limit=limit)


def row(planting: Planting, method: str, level: float | None, seed: int, limit: int = TIME_LIMIT) -> dict[str, Any]:
    """The measured part of a row; without recovery where the time limit was reached."""
    terms, game = planted(planting, level, seed)
    who, decoder = method.split()
    warm(who, decoder, planting.n)
    described = {"n": planting.n, "planted": planting.terms, "b": planting.b}
    try:
        found, seconds, evaluations = decoded(who, planting, game, decoder, seed, limit=limit)
    except TimeLimitError:
        # A result, not an error: another run would wait as long for nothing.
        return described | {"seconds": limit, "time_limit": True}
    return described | judged(terms, found) | {"seconds": seconds, "evaluations": evaluations}
