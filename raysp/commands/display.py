"""What the terminal shows: answers as text and tables, and a progress bar. Programs read JSON on stdout instead."""

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from raysp.commands.printable import printable
from raysp.report import readings, words
from raysp.report.numbers import Scale, number, scale
from raysp.report.query_view import TABLES, Answered, Effect, Together, answered
from raysp.runs.progress import Progress as RunProgress
from raysp.runs.progress import bar_text
from raysp.runs.queries import direction
from raysp.runs.result import Result
from raysp.runs.singles import Single, ranked
from raysp.store import rows

# Width of tables in a log, which has no width of its own.
LOG_WIDTH = 140
# Seconds between lines of progress in a log, which cannot show a bar.
LOG_SECONDS = 10.0


class _Terminal(Console):
    """A console on which text from elsewhere, such as a label, commands nothing."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


out = _Terminal(highlight=False, emoji=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else LOG_WIDTH)
err = _Terminal(stderr=True, highlight=False, emoji=False)

VERDICT_STYLES = {"reliable": "bold green", "use with care": "bold yellow", "do not trust": "bold red"}
KINDS = {"synergy": "synergy: they work only together", "redundancy": "redundancy: each covers for the others"}
SHOWN = 10
# Queries printed, entries of each kind for each query, and characters of a text.
QUERIES, OF_EACH, TEXT = 5, 3, 76


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n")


def note(text: str | None) -> None:
    """Print a remark on stderr, if there is one."""
    if text:
        err.print(text, style="dim", markup=False)


@contextmanager
def live_bar(quiet: bool) -> Generator[Callable[[str, RunProgress], None]]:
    """A progress bar on stderr, or lines if stderr is not a terminal; nothing when quiet."""
    if quiet:
        yield lambda _label, _progress: None
        return
    if not err.is_terminal:
        yield _LogLines()
        return
    warn = _Warnings()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TextColumn("{task.fields[text]}", markup=False))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None, text="")

        def watch(label: str, progress: RunProgress) -> None:
            warn(label, progress)
            bar.update(task, description=printable(f"{label}{progress.phase}"), completed=progress.done, total=progress.total or None, text=bar_text(progress))

        yield watch


class _Warnings:
    """Warnings shown before the budget is spent, each once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, label: str, progress: RunProgress) -> None:
        for text in progress.warnings:
            if f"{label}{text}" not in self._said:
                self._said.add(f"{label}{text}")
                err.print(f"[bold yellow]warning:[/] {escape(label + text)}")


class _LogLines:
    """Progress as a line every few seconds and at every new phase."""

    def __init__(self) -> None:
        self._at, self._phase = 0.0, ""
        self._warn = _Warnings()

    def __call__(self, label: str, progress: RunProgress) -> None:
        self._warn(label, progress)
        phase, now = f"{label}{progress.phase}", time.monotonic()
        if phase != self._phase or now - self._at > LOG_SECONDS:
            self._at, self._phase = now, phase
            sys.stderr.write(f"{printable(phase)} {bar_text(progress)}\n".replace(" \n", "\n"))


def result_json(result: Result) -> dict[str, Any]:
    """A result as one JSON object: the run's row and its tables, without evaluations and texts of examples, which SQL can read."""
    shown = ("components", "singles", "interactions", "validation", "cross_checks", "prunings", "costs", "events")
    of_queries = ("queries", "query_scores", "query_singles", "query_interactions", "data_scores", "selections") if result.queries.num_rows else ()
    tables = {name: getattr(result, name).to_pylist() for name in (*shown, *of_queries)}
    return {"run_id": result.run_id, "summary": result.summary, **tables}


def print_result(result: Result) -> None:
    """Print the answer: the verdict with its reasons, the strongest single effects and interactions, and the cost."""
    row = result.summary
    verdict = row["verdict"] or row["status"]
    out.print(f"\n[bold]run {result.run_id}[/]  {escape(_question(row))}")
    out.print(_values(row, "intact", "everything removed"))
    out.print(f"[{VERDICT_STYLES.get(verdict, 'bold')}]{verdict}[/]")
    if row["r2"] is not None:
        out.print(f"[dim]{fit_text(row)}[/]")
    if noise := (row["metrics"] or {}).get("numeric_noise"):
        out.print(f"[dim]{words.numeric_noise(noise)}[/]")
    for reason in row["reasons"] or ():
        out.print(f"  · {escape(reason['sentence'])}")
    singles = ranked(result.singles.to_pylist(), [str(label) for label in result.components["label"].to_pylist()])
    print_singles(singles[:SHOWN], row)
    _print_interactions(result.interactions)
    if result.queries.num_rows:
        print_queries(result)
    _print_costs(result.costs)


def _values(row: Mapping[str, Any], intact: str, empty: str) -> str:
    """The value with everything and with nothing."""
    found = scale([row["value_intact"], row["value_empty"]])
    unit = f" ({found.unit})" if found.unit else ""
    return f"value: {intact} {found.show(row['value_intact'])}, {empty} {found.show(row['value_empty'])}{unit}"


def fit_text(row: Mapping[str, Any]) -> str:
    """How well a run's held-out values are predicted: those of masks like the fit's, and those around the intact input if they were scored."""
    alone = "" if row["r2_singles"] is None else f" (single effects alone {words.ratio(row['r2_singles'])})"
    return " · ".join(part for part in (f"R² {words.ratio(row['r2'])}{alone}", words.near(row)) if part)


def _question(row: dict[str, Any]) -> str:
    described = " · ".join(str(row[key]) for key in ("lens", "model", "dtype", "explorer") if row.get(key))
    return f"{described} · n = {row['n']}"


def print_singles(singles: list[Single], run: Mapping[str, Any]) -> None:
    """Print single effects, in their order, in the readings that are known; `run` is the row of their run."""
    print_title(readings.numbers(singles).titled("Single effects (strongest first)"))
    two = readings.both(singles)
    table = Table("component", *readings.columns(singles, words.at_intact(run)), *(() if two else ("measured by",)), box=None)
    for single, cells in zip(singles, readings.cells(singles), strict=True):
        table.add_row(escape(single.label), *map(escape, cells), *(() if two else (single.method,)))
    out.print(table)
    if two:
        out.print(words.readings_of(run, singles), style="dim", markup=False)


def _print_interactions(interactions: pa.Table) -> None:
    rows = interactions.slice(0, SHOWN).to_pylist()
    if not rows:
        out.print("No interactions found.")
        return
    index = _field(rows[0], "index")
    size = scale(row[name] for row in rows for name in ("value", "lo", "hi", "estimate", "estimate_lo", "estimate_hi", "exact"))
    print_title(size.titled("Interactions (significant first, then strongest given their intervals)"))
    table = Table(
        "set",
        index,
        "95% interval",
        "significant",
        "deviation: predicted",
        "exact",
        "kind",
        box=None,
    )
    for row in rows:
        interval = size.interval(row["lo"], row["hi"])
        exact = f"{size.show(row['exact'])} ✓" if row["verified"] else "not measured"
        sure = "yes" if row["significant"] else "no"
        table.add_row(escape(row["labels"]), size.show(row["value"]), escape(interval), sure, _predicted(row, size), exact, row["kind"])
    out.print(table)
    for kind in sorted({row["kind"] for row in rows} & KINDS.keys()):
        out.print(f"[dim]{KINDS[kind]}[/]")


def _predicted(row: Mapping[str, Any], size: Scale) -> str:
    """A predicted deviation, with its interval unless the value was measured and is written in."""
    return escape(
        f"{size.show(row['estimate'])} {size.interval(row['estimate_lo'], row['estimate_hi'])}" if words.uncertain(row) else size.show(row["estimate"])
    )


def print_queries(result: Result) -> None:
    """Print the influential examples of the first few queries."""
    tables = {name: getattr(result, name).to_pylist() for name in TABLES}
    labels = [str(label) for label in result.components["label"].to_pylist()]
    towards, averaged = direction(result.summary["game"]["description"]), False
    for each in answered(tables, labels, towards, top=OF_EACH, queries=QUERIES):
        rather = f" rather than “{_cut(each.foil)}”" if each.foil is not None else ""
        out.print(f"\n[bold]query {each.query + 1}[/] {escape(_cut(each.prompt))} → “{escape(_cut(each.target) + '”' + rather)}")
        out.print(f"  [dim]{_scores(each.scores)}[/]")
        size = scale(_shown(each))
        for name, effects in (("helped", each.helpful), ("harmed", each.harmful)):
            for effect in effects:
                alone = "" if effect.beside is None else f" [dim](alone {size.whole(effect.beside)})[/]"
                out.print(f"  {name:9} {size.whole(effect.value)}{alone}  {escape(_effect_text(effect))}")
                averaged = averaged or effect.beside is not None
        for name, sets in (("redundant", each.redundant), ("synergy", each.synergies)):
            for found in sets:
                out.print(f"  {name:9} {size.whole(found.deviation)}{' ✓' if found.verified else '  '} {escape(_set_text(found))}")
    if result.queries.num_rows > QUERIES:
        where = f"raysp sql \"FROM query_summary WHERE run_id = '{result.run_id}'\""
        out.print(f"\n{result.queries.num_rows - QUERIES} more queries: [dim]{escape(where)}[/]")
    alone = "v(all) − v(all without it)"
    meant = f"mean effect over training sets without some of the others (alone: {alone})" if averaged else alone
    out.print(f"[dim]helped, harmed: {meant}; redundant, synergy: deviation from additivity, ✓ measured exactly[/]")


def _shown(answer: Answered) -> list[float | None]:
    """All effects and deviations of a query."""
    return [
        *(value for effect in (*answer.helpful, *answer.harmful) for value in (effect.value, effect.beside)),
        *(found.deviation for found in (*answer.redundant, *answer.synergies)),
    ]


def _scores(row: Mapping[str, Any]) -> str:
    if not row:
        return "no answer yet"
    told = [_values(row, "trained on everything", "trained on nothing")]
    told += [
        f"{name} {row[key]:.2f} (single effects alone {row[f'{key}_singles']:.2f})" for name, key in (("R²", "r2"), ("LDS", "lds")) if row[key] is not None
    ]
    return " · ".join(told)


def _effect_text(effect: Effect) -> str:
    more = f" (and {effect.member.examples - 1} more)" if effect.member.examples > 1 else ""
    return _cut(effect.member.text) + more


def _set_text(found: Together) -> str:
    return " × ".join(_cut(member.text, TEXT // 2) for member in found.members)


def _cut(text: str, limit: int = TEXT) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _print_costs(costs: pa.Table) -> None:
    told = [
        f"{row['phase']}: {row['evaluations']:,} evaluations"
        + (f" + {row['reused']:,} from the store" if row["reused"] else "")
        + f" in {row['wall_seconds']:.1f} s"
        for row in costs.to_pylist()
        if row["evaluations"] or row["reused"]
    ]
    out.print("[dim]" + " · ".join(told) + "[/]")


def _field(row: dict[str, Any], name: str) -> str:
    return str(row.get(name, row.get(f"{name}_name", "value")))


def print_title(title: str) -> None:
    """Print the title of a table, which rich would otherwise wrap to the width of the table."""
    out.print(title, style="italic", markup=False)


def print_table(table: pa.Table) -> None:
    """Print an Arrow table."""
    shown = Table(*map(escape, table.column_names), box=None)
    for row in rows(table):
        shown.add_row(*(escape(_cell(value)) for value in row))
    out.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_together(told: dict[str, Any]) -> None:
    """Print what several runs give together: comparisons with repeats, or the summary of a set of examples."""
    from raysp.runs.comparison import comparison_text

    for comparison in told.get("comparisons", ()):
        out.print(comparison_text(comparison), markup=False)
    if "set" in told:
        summary = told["set"]
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items())
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary["kinds_among_top"].items()) or "none"
        out.print(f"\n[bold]{summary['runs']} examples[/]: {verdicts}")
        out.print(f"median R² {number(summary['median_r2'])}, single effects alone {number(summary['median_r2_singles'])}; strongest interactions: {kinds}")
