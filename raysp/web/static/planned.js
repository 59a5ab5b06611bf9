// A plan: sizes and costs of a question in figures and words.

import { clear, duration, make, number } from "./raysp.js";

const LONG = 31_557_600;
const took = (seconds) => (seconds === null || seconds > LONG * 1.4e10 ? "longer than the universe has lasted" : seconds > 2 * LONG ? `${number(seconds / LONG)} years` : duration(seconds));
const count = (value) => (value === null || value > 1e15 ? "astronomically many" : value > 1e9 ? number(value) : value.toLocaleString("en"));
const many = (value, what) => `${value.toLocaleString("en")} ${what}${value === 1 ? "" : "s"}`;

export function showPlan(place, content, plan) {
  const run = plan.this_run;
  const what = plan.training ? "retraining" : "evaluation";
  const figure = (name, value, small) => make("div", {}, make("dt", {}, name), make("dd", {}, value, small ? make("small", {}, small) : null));
  const figures = make("dl", { class: "ends" },
    plan.runs > 1 ? figure("Runs", plan.runs.toLocaleString("en"), "figures are of the first") : null,
    figure("Components", plan.components.toLocaleString("en")),
    figure(`${what[0].toUpperCase()}${what.slice(1)}s at most`, (run.explore_evaluations + run.validate_evaluations).toLocaleString("en"), `${run.explore_evaluations.toLocaleString("en")} to explore, ${run.validate_evaluations.toLocaleString("en")} to validate`),
    figure("Time on one evaluator", took(run.seconds), `${duration(plan.seconds_per_evaluation)} each`));
  const every = plan.exhaustive;
  const compared = make("table", {}, make("caption", { class: "note" }, `Measuring everything instead of what ${run.explorer} chooses`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "All"), make("th", { scope: "col", class: "num" }, "Sets"), make("th", { scope: "col", class: "num" }, "Time"))),
    make("tbody", {}, [["pairs", plan.pairs, every.pairs_seconds], ["triples", plan.triples, every.triples_seconds], ["subsets", plan.subsets, every.subsets_seconds]]
      .map(([name, sets, seconds]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "num" }, count(sets)), make("td", { class: "num" }, took(seconds))))));
  const told = [
    ...plan.warnings.map((text) => make("li", { class: "warning" }, `Warning: ${text}`)),
    ...(plan.training ? [make("li", {}, `${many(plan.training.examples, "training example")}, ${plan.training.grouped}; ${many(plan.training.queries, "query").replace("querys", "queries")}. ${many(plan.training.subsets, "subset")} support about ${many(plan.training.carried_components, "component")}.`)] : []),
    ...plan.notes.map((text) => make("li", {}, text)),
    make("li", {}, plan.timed_here ? `The time of one ${what} was measured just now on ${many(plan.timed_masks, "mask")}, which are stored and not paid for again.` : `The time of one ${what} is the median of ${many(plan.timed_masks, "mask")} in the store.`),
  ];
  clear(content, figures, make("ul", {}, told), compared);
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
}
