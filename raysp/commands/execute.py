"""Run a spec and print its answer or its plan."""

from collections.abc import Sequence
from typing import Any

from raysp.commands import display
from raysp.home import store_path
from raysp.report.page import write_report, write_set_report
from raysp.runs.comparison import compare_runs, set_summary
from raysp.runs.parts import PlannedRun, parts, set_name
from raysp.runs.plan import plan_run, plan_text
from raysp.runs.progress import Progress, SetProgress
from raysp.runs.result import Result
from raysp.runs.stored_game import PLAN
from raysp.runtime.engine import run_parts, workplace
from raysp.specs.run import RunSpec
from raysp.store import Store


def answer(spec: RunSpec, *, json: bool, report: str | None = None, run_id: str | None = None) -> None:
    """Run everything that a spec asks for and print the answers."""
    wanted = parts(spec)
    results: list[Result] = []
    with display.live_bar(quiet=json) as bar:
        together = SetProgress([part.label for part in wanted])

        def tell(number: int, progress: Progress) -> None:
            bar("", together.observe(number, progress) if len(wanted) > 1 else progress)

        for _, result in run_parts(wanted, watch=tell, set_name=set_name(spec), run_id=run_id):
            results.append(result)
            if not json:
                display.print_result(result)
    if report:
        _write_report(spec, [result.run_id for result in results], report)
    show_together(spec, wanted, results, json=json)
    if report and not json:
        display.out.print(f"report: {report}", markup=False)


def show_together(spec: RunSpec, wanted: Sequence[PlannedRun], results: list[Result], *, json: bool) -> None:
    """Print what the answers of a spec, already printed one by one, give together; or with `json` all of it."""
    told = _together(spec, [part.label for part in wanted], results)
    if json:
        display.print_json(told)
    else:
        display.print_together(told)


def _together(spec: RunSpec, names: list[str], results: list[Result]) -> dict[str, Any]:
    """One object for a single result, for a set of examples with its summary, or for a question with its repeats."""
    if spec.examples:
        return {"runs": [display.result_json(result) for result in results], "set": set_summary(results)}
    told = display.result_json(results[0])
    if len(results) > 1:
        told["repeats"] = [display.result_json(result) for result in results[1:]]
        told["comparisons"] = [{"with": name, **compare_runs(results[0], other)} for name, other in zip(names[1:], results[1:], strict=True)]
    return told


def _write_report(spec: RunSpec, run_ids: list[str], path: str) -> None:
    with Store.read(store_path(spec.store)) as reading:
        if spec.examples:
            write_set_report(reading, run_ids, path)
        else:
            write_report(reading, run_ids[0], path)


def show_plan(spec: RunSpec, *, json: bool) -> None:
    """Print a plan."""
    wanted = parts(spec)
    first = wanted[0].spec
    with workplace(store_path(first.store), PLAN, local=first.local, reading=True) as place:
        ready = place.prepared(first)
        plan = plan_run(ready, place.store, place.backend_of(ready.lens))
    if len(wanted) > 1:
        plan["runs"] = len(wanted)
    if json:
        display.print_json(plan)
        return
    display.out.print(plan_text(plan), markup=False)
    if len(wanted) > 1:
        display.out.print(f"The spec asks for {len(wanted)} runs; this is the plan of the first.")
