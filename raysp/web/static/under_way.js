// A run that has no answer yet: what it does, until its answer takes the place of this page.

import { ask, clear, duration, later, listen, make, number } from "./raysp.js";
import "./spec.js";
import { isUnderWay, moment, ProgressBar, shareOf, standing, Steering } from "./standing.js";

const at = (id) => document.getElementById(id);
const section = at("run");
const { run: id, name } = section.dataset;
const bar = new ProgressBar("Progress");
const steering = new Steering(id, name, (state) => { show(state); if (!source) follow(); });
const TITLES = { queued: "Waiting", running: "Running", paused: "Paused", cancelled: "Cancelled", interrupted: "Interrupted", failed: "Failed", done: "Done" };
const ADVICE = {
  paused: "What was measured is stored. Resume continues from there.",
  cancelled: "What was measured is stored. Resume continues from there, and measures nothing twice.",
  interrupted: "The service ended while this was under way. What was measured is stored, and Resume continues from there.",
  failed: "What was measured is stored. Fix what the message names and ask again, or resume to try the same once more.",
};
let [state, source, logged] = [null, null, ""];

function figure(title, words) {
  return words === null || words === undefined ? null : make("div", {}, make("dt", {}, title), make("dd", {}, words));
}

function show(next) {
  state = { ...state, ...next };
  const { progress, status } = state;
  const words = standing(state);
  const title = status === words ? TITLES[status] : `${TITLES[status]}: ${words}`;
  if (at("standing").textContent !== title) clear(at("standing"), make("span", { class: "mark", "aria-hidden": "true" }), title);
  section.className = `verdict live ${status}`;
  const running = status === "running";
  if (isUnderWay(state) || shareOf(state) !== null) {
    if (!bar.element.isConnected) at("progress").append(bar.element);
    bar.show(state);
  }
  clear(at("figures"), isUnderWay(state) && progress ? [
    figure("evaluations", progress.total ? `${progress.done.toLocaleString("en")} of ${progress.total.toLocaleString("en")}` : progress.done ? progress.done.toLocaleString("en") : null),
    figure("from the store", progress.reused ? progress.reused.toLocaleString("en") : null),
    figure("per second", running && progress.rate ? number(progress.rate) : null),
    figure("left", running && progress.left !== null ? duration(progress.left) : null),
    figure("R² so far", progress.r2 === null ? null : progress.r2.toFixed(2).replace("-", "−")),
  ] : []);
  at("error").textContent = state.error ?? "";
  at("error").hidden = !state.error;
  at("advice").textContent = ADVICE[status] ?? (status === "queued" ? "It begins by itself once others have been served." : "");
  const warnings = progress?.warnings ?? [];
  clear(at("warnings"), warnings.map((warning) => make("li", {}, warning)));
  at("warnings").hidden = !warnings.length;
  steering.show(state);
  const share = shareOf(state);
  document.title = `${isUnderWay(state) && share !== null ? `${Math.floor(100 * share)} % ` : ""}${TITLES[status].toLowerCase()}: ${name} · raysp`;
  const mark = `${status} ${progress?.phase} ${warnings.length}`;
  if (mark !== logged) { logged = mark; soon(); }
  if (status === "done") setTimeout(() => location.reload(), 150);
}

// What is stored about the run so far.
async function look() {
  try {
    const { rows } = await ask(`/runs/${encodeURIComponent(id)}/log`);
    at("no-log").hidden = rows.length > 0;
    const seen = at("log").children.length;
    if (rows.length < seen) clear(at("log"));
    at("log").append(...rows.slice(at("log").children.length).map((row) => make(
      "li", {}, make("time", { datetime: moment(row.time).toISOString() }, moment(row.time).toLocaleTimeString()), make("b", {}, row.kind), make("span", {}, row.message),
    )));
  } catch {
    // The next change asks again.
  }
}
const soon = later(400, look);

function follow() {
  source = listen(`/runs/${encodeURIComponent(id)}/events`, (told) => {
    show(told);
    if (isUnderWay(told)) return true;
    source = null;
    return false;
  });
}

at("doing").append(steering.element);
show(JSON.parse(at("state").textContent));
look();
follow();
