// The list of runs: filters that are in the address, one page at a time, kept up to date by events.

import { ask, later, listen, make, number, tell } from "./raysp.js";
import { classOf, isUnderWay, ProgressBar, renewTimes, standing, Steering, timeOf } from "./standing.js";

const PAGE = 50;
const MOST_COMPARED = 12;
const SERVICE_MS = 3000;
const FIELDS = ["q", "status", "lens", "model", "verdict", "set"];
const at = (id) => document.getElementById(id);
const [form, list] = [at("filters"), at("runs")];
const rows = new Map(); // by id, those of this page
const statuses = new Map(); // of every run that an event told of
const chosen = new Map(); // names by id, also those of other pages
let [offset, turn] = [0, 0];

// ---- filters and the address

const fieldOf = (name) => form.elements.namedItem(name);

function fromAddress() {
  const given = new URLSearchParams(location.search);
  for (const name of FIELDS) {
    const [field, value] = [fieldOf(name), given.get(name) ?? ""];
    if (!field) continue;
    if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) field.append(make("option", {}, value));
    field.value = value;
  }
  offset = Math.max(0, Number.parseInt(given.get("offset") ?? "0", 10) || 0);
}

const filters = () => FIELDS.map((name) => [name, fieldOf(name)?.value.trim() ?? ""]).filter(([, value]) => value);

function addressAt(from) {
  const query = new URLSearchParams(filters());
  if (from) query.set("offset", String(from));
  return query.size ? `/runs?${query}` : "/runs";
}

function changed() {
  offset = 0;
  history.replaceState(null, "", addressAt(0));
  load();
}

function unfilter() {
  for (const name of FIELDS) if (fieldOf(name)) fieldOf(name).value = "";
  changed();
  fieldOf("q").focus();
}

// ---- rows

class Row {
  constructor(run) {
    this.id = run.run_id;
    this.name = run.name || run.run_id;
    this.box = make("input", { type: "checkbox", "aria-label": `Choose ${this.name} to compare`, change: () => choose(this.id, this.name, this.box.checked) });
    this.status = make("span", { class: "status" });
    this.middle = make("div", { class: "middle" });
    this.bar = new ProgressBar(`Progress of ${this.name}`);
    this.steering = new Steering(this.id, this.name, (state) => this.note(state));
    const kind = [run.lens, run.explorer, run.model, run.n ? `${run.n.toLocaleString("en")} components` : null, run.set_name ? `in ${run.set_name}` : null];
    this.element = make(
      "li", { class: "run" },
      make("label", { class: "box" }, this.box),
      make("div", { class: "what" }, make("a", { href: `/runs/${encodeURIComponent(this.id)}` }, this.name), make("small", {}, kind.filter(Boolean).join(" · "))),
      make("div", { class: "stands" }, this.status, run.started ? make("small", {}, timeOf(run.started)) : null),
      this.middle,
      this.steering.element,
    );
    this.show(run);
  }

  // Everything, as the list has it.
  show(run) {
    this.run = run;
    this.box.checked = chosen.has(this.id);
    const words = run.status === "done" ? run.verdict || "done" : standing(run);
    this.status.className = `status ${classOf(run.status === "done" && run.verdict ? run.verdict : run.status)}`;
    if (this.status.textContent !== words) this.status.replaceChildren(make("span", { class: "mark", "aria-hidden": "true" }), words);
    this.steering.show(run);
    if (isUnderWay(run)) {
      if (!this.bar.element.isConnected) this.middle.replaceChildren(this.bar.element);
      this.bar.show(run);
    } else this.middle.replaceChildren(...found(run));
  }

  // What an event tells.
  note(state) {
    this.show({ ...this.run, ...state, name: this.run.name, verdict: state.verdict ?? this.run.verdict });
  }
}

function found(run) {
  if (run.error) return [make("span", { class: "bad clipped", title: run.error }, run.error)];
  if (run.status !== "done") return [];
  const told = run.r2 === null ? [] : [make("span", { class: "r2" }, "R² ", make("b", {}, run.r2.toFixed(2).replace("-", "−")), run.r2_singles === null ? "" : ` · singles ${run.r2_singles.toFixed(2).replace("-", "−")}`)];
  return [...told, make("span", { class: "clipped faint", title: run.strongest ?? "" }, run.strongest ?? "no interactions")];
}

// Puts the rows of a page in their places; those that stay where they are keep the focus.
function show({ runs, total, next }) {
  const wanted = new Set(runs.map((run) => run.run_id));
  for (const [id, row] of rows) {
    if (!wanted.has(id)) { row.element.remove(); rows.delete(id); }
  }
  runs.forEach((run, place) => {
    const row = rows.get(run.run_id) ?? new Row(run);
    if (rows.has(run.run_id)) row.show(run);
    rows.set(run.run_id, row);
    statuses.set(run.run_id, run.status);
    if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
  });
  list.setAttribute("aria-busy", "false");
  const filtered = filters().length > 0;
  at("unfiltered").hidden = !filtered;
  at("empty").hidden = total > 0 || filtered;
  at("unmatched").hidden = total > 0 || !filtered;
  const last = offset + runs.length;
  const shown = runs.length < total ? `${(offset + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${total.toLocaleString("en")} runs` : `${total.toLocaleString("en")} ${total === 1 ? "run" : "runs"}`;
  at("count").textContent = total ? shown : "";
  page("newer", offset > 0 ? Math.max(0, offset - PAGE) : null);
  page("older", next);
  at("pages").hidden = offset === 0 && next === null;
}

function page(id, from) {
  at(id).hidden = from === null;
  if (from !== null) Object.assign(at(id), { href: addressAt(from) });
}

async function load() {
  turn += 1;
  const mine = turn;
  const query = new URLSearchParams([...filters(), ["limit", String(PAGE)], ["offset", String(offset)]]);
  try {
    const answer = await ask(`/runs?${query}`);
    if (mine !== turn) return;
    if (offset && !answer.runs.length && answer.total) { // the page is gone
      offset = 0;
      load();
    } else show(answer);
  } catch (error) {
    if (mine === turn) tell(error.message, { bad: true });
  }
}

// ---- what happens meanwhile

const soon = later(250, load);

function follow(state) {
  const before = statuses.get(state.run_id);
  statuses.set(state.run_id, state.status);
  rows.get(state.run_id)?.note(state);
  if (before !== state.status) soon();
}

// A browser has few connections to a host: a list that nobody sees gives its one back, and looks again when it is seen.
let source = null;
let lost = false;

function watch() {
  if (document.hidden || source) return;
  source = listen("/events", follow);
  source.addEventListener("error", () => { lost = true; });
  source.addEventListener("open", () => { if (lost) load(); lost = false; });
}

function unwatch() {
  source?.close();
  [source, lost] = [null, true];
}

async function lookAtService() {
  if (document.hidden) return;
  let told = "";
  try {
    const { answers, evaluators, runs = {}, evaluations_per_second: rate } = await ask("/service");
    const busy = evaluators?.filter((each) => each.state === "busy").length ?? 0;
    told = [
      answers ? null : "the scheduler does not answer",
      evaluators?.length ? `${busy} of ${evaluators.length} ${evaluators.length === 1 ? "worker" : "workers"} busy` : "no workers started",
      rate ? `${number(rate)} evaluations/s` : null,
      runs.running ? `${runs.running} running` : null,
      runs.queued ? `${runs.queued} queued` : null,
    ].filter(Boolean).join(" · ");
  } catch (error) {
    told = error.message;
  }
  if (at("service").textContent !== told) at("service").textContent = told;
}

// ---- choosing runs to compare

function choose(id, name, on) {
  if (on) chosen.set(id, name);
  else chosen.delete(id);
  at("chosen").hidden = !chosen.size;
  const enough = chosen.size > 1 && chosen.size <= MOST_COMPARED;
  const hint = chosen.size === 1 ? ": choose another to compare" : chosen.size > MOST_COMPARED ? `: at most ${MOST_COMPARED} can be compared` : "";
  at("chosen-count").textContent = `${chosen.size} chosen${hint}`;
  if (enough) at("compare").setAttribute("href", `/compare?runs=${[...chosen.keys()].map(encodeURIComponent).join(",")}`);
  else at("compare").removeAttribute("href");
  at("compare").setAttribute("aria-disabled", String(!enough));
}

function unchoose() {
  for (const id of [...chosen.keys()]) {
    if (rows.has(id)) rows.get(id).box.checked = false;
    choose(id, "", false);
  }
}

// ---- beginning

form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
form.addEventListener("reset", (event) => { event.preventDefault(); unfilter(); });
form.addEventListener("change", (event) => { if (event.target.id !== "q") changed(); });
fieldOf("q").addEventListener("input", later(200, changed));
at("unmatched-clear").addEventListener("click", unfilter);
at("unchoose").addEventListener("click", unchoose);
for (const id of ["newer", "older"]) {
  at(id).addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", at(id).href);
    fromAddress();
    load().then(() => { scrollTo({ top: 0 }); at("count").focus?.(); });
  });
}
addEventListener("popstate", () => { fromAddress(); load(); });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) unwatch();
  else watch();
  lookAtService();
});
setInterval(lookAtService, SERVICE_MS);
setInterval(renewTimes, 20000);
fromAddress();
load();
watch();
lookAtService();
