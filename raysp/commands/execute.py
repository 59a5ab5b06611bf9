"""Run a spec and print its answer or its plan, here or on a service elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any

from raysp.commands import display
from raysp.commands.place import Place
from raysp.commands.where import place
from raysp.runs.comparison import compare_runs, set_summary
from raysp.runs.plan import plan_text
from raysp.runs.progress import Progress, SetProgress, WatchAll
from raysp.runs.result import Result
from raysp.specs.run import RunSpec


def answer(spec: RunSpec, *, server: str | None = None, json: bool, report: str | None = None, run_id: str | None = None) -> None:
    """Run everything that a spec asks for and print the answers."""
    where = place(server, spec.store, local=spec.local)
    labels: list[str] = []
    results: list[Result] = []
    with display.live_bar(quiet=json) as bar:
        for label, result in where.answers(spec, lambda labels: _watch(labels, bar), run_id):
            labels.append(label)
            results.append(result)
            if not json:
                display.print_result(result)
    if report:
        _write_report(where, spec, [result.run_id for result in results], report)
    show_together(spec, labels, results, json=json)
    if report and not json:
        display.out.print(f"report: {report}", markup=False)


def _watch(labels: Sequence[str], bar: Callable[[str, Progress], None]) -> WatchAll:
    """What shows the progress of runs with these labels as one."""
    together = SetProgress(list(labels))
    return lambda number, progress: bar("", together.observe(number, progress))


def show_together(spec: RunSpec, labels: Sequence[str], results: list[Result], *, json: bool) -> None:
    """Print what the answers of a spec, already printed one by one, give together; or with `json` all of it."""
    told = _together(spec, labels, results)
    if json:
        display.print_json(told)
    else:
        display.print_together(told)


def _together(spec: RunSpec, labels: Sequence[str], results: list[Result]) -> dict[str, Any]:
    """One object for a single result, for a set of examples with its summary, or for a question with its repeats."""
    if spec.examples:
        return {"runs": [display.result_json(result) for result in results], "set": set_summary(results)}
    told = display.result_json(results[0])
    if len(results) > 1:
        told["repeats"] = [display.result_json(result) for result in results[1:]]
        told["comparisons"] = [{"with": name, **compare_runs(results[0], other)} for name, other in zip(labels[1:], results[1:], strict=True)]
    return told


def _write_report(where: Place, spec: RunSpec, run_ids: list[str], path: str) -> None:
    if spec.examples:
        where.write_set_report(run_ids, path)
    else:
        where.write_report(run_ids[0], path)


def show_plan(spec: RunSpec, *, server: str | None = None, json: bool) -> None:
    """Print a plan."""
    plan = place(server, spec.store, local=spec.local).plan(spec)
    runs = plan.pop("runs")
    if runs > 1:
        plan["runs"] = runs
    if json:
        display.print_json(plan)
        return
    display.out.print(plan_text(plan), markup=False)
    if runs > 1:
        display.out.print(f"The spec asks for {runs} runs; this is the plan of the first.")
