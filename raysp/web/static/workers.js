// What the service does, and with what. Asked every few seconds, one request at a time; states of runs come by themselves.

import { ask, clear, duration, listen, make, number } from "./raysp.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;
const POINTS = 90; // of the sparkline
const UNDER_WAY = ["running", "queued", "paused"];
const STATUSES = ["done", "paused", "failed", "cancelled", "interrupted"];

const byId = (id) => document.getElementById(id);
const states = new Map();
const rates = [];
let service = null;
let timer = 0;

// ---- asking

async function refresh() {
  clearTimeout(timer);
  const patience = new AbortController();
  const late = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const found = await ask("/service", { signal: patience.signal });
    if (!found.answers || !found.evaluators) throw new Error(found.version);
    service = found;
    rates.push(found.evaluations_per_second);
    if (rates.length > POINTS) rates.shift();
    showAbsent(false);
    show();
  } catch {
    showAbsent(true);
  }
  clearTimeout(late);
  if (!document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) refresh();
});

function showAbsent(absent) {
  byId("absent").hidden = !absent;
  byId("live").classList.toggle("stale", absent);
}

// ---- showing

// Content is replaced only where it has changed, so that what is selected or focused stays.
function put(place, signature, content) {
  const key = JSON.stringify(signature);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  clear(place, content());
}

function show() {
  const { evaluators, runs } = service;
  byId("rate").textContent = number(service.evaluations_per_second);
  spark();
  byId("busy").textContent = evaluators.length ? `${evaluators.filter((each) => each.state === "busy").length} of ${evaluators.length}` : "none yet";
  byId("running").textContent = runs.running || 0;
  byId("queued").textContent = runs.queued || 0;
  byId("others").textContent = STATUSES.filter((status) => runs[status]).map((status) => `${runs[status]} ${status}`).join(", ") || "none";
  showNodes(evaluators);
  showUnderWay();
  const links = Object.entries(service.links).filter(([, address]) => address && /^https?:\/\//.test(address));
  const names = { dashboard: "Ray dashboard", grafana: "Grafana" };
  put(byId("facts"), [service.version, service.store, links], () => [
    ["Version", service.version], ["Store", make("code", {}, service.store)],
    ...links.map(([name, address]) => [names[name] || name, make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address)]),
  ].flatMap(([name, content]) => [make("dt", {}, name), make("dd", {}, content)]));
}

function spark() {
  const [width, height] = [132, 28];
  const most = Math.max(...rates, 1e-9);
  const at = (rate, i) => `${(width - (rates.length - 1 - i) * (width / (POINTS - 1))).toFixed(1)} ${(1 + height * (1 - rate / most)).toFixed(1)}`;
  const line = rates.map((rate, i) => `${i ? "L" : "M"}${at(rate, i)}`).join("");
  byId("spark-line").setAttribute("d", line);
  byId("spark-area").setAttribute("d", rates.length > 1 ? `${line}V29L${at(0, 0).split(" ")[0]} 29Z` : "");
  byId("spark").setAttribute("aria-label", `Evaluations per second in the last ${duration((rates.length * EVERY_MS) / 1000)}: now ${number(rates.at(-1))}, at most ${number(Math.max(...rates))}`);
}

function showNodes(evaluators) {
  put(byId("nodes"), evaluators, () => {
    if (!evaluators.length) return make("p", { class: "note" }, "No evaluator runs. One starts when a question is asked, and ends when it has had nothing to do for a while.");
    const nodes = Map.groupBy ? Map.groupBy(evaluators, (each) => each.node) : grouped(evaluators);
    const head = make("thead", {}, make("tr", {}, ["Evaluator", "State", "Models in memory"].map((name) => make("th", { scope: "col" }, name))));
    const bodies = [...nodes].map(([node, members]) => make("tbody", {},
      make("tr", { class: "node" }, make("th", { colspan: 3, scope: "rowgroup" }, node ? `Node ${node.slice(0, 12)}` : "No node yet", make("small", {}, `${members.length} evaluator${members.length === 1 ? "" : "s"}`))),
      members.map((each) => make("tr", {}, make("td", {}, each.name.replace("raysp:evaluator:", "")), make("td", {}, make("span", { class: `state ${each.state}` }, each.state)), make("td", { class: "name" }, each.resident.join(", ") || "–")))));
    return make("table", { class: "nodes" }, head, bodies);
  });
}

function grouped(evaluators) {
  const found = new Map();
  for (const each of evaluators) found.set(each.node, [...(found.get(each.node) || []), each]);
  return found;
}

function showUnderWay() {
  const place = (state) => (state.status === "running" ? -1 : inLine(state) || Infinity);
  const under = [...states.values()].filter((state) => UNDER_WAY.includes(state.status)).sort((a, b) => (place(a) === place(b) ? 0 : place(a) - place(b)) || a.run_id.localeCompare(b.run_id));
  put(byId("under-way"), under.map((state) => [state, inLine(state)]), () => {
    if (!under.length) return make("p", { class: "note" }, "Nothing runs and nothing waits.");
    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Run"), make("th", { scope: "col" }, "State"), make("th", { scope: "col", class: "num" }, "Priority"), make("th", { scope: "col", class: "num wide" }, "Per second"), make("th", { scope: "col", class: "num" }, "Left")));
    return make("table", {}, head, make("tbody", {}, under.map(line)));
  });
}

// The place in the queue, from 1; 0 for a run that is not in it.
const inLine = (state) => (state.status === "queued" ? service.queue.indexOf(state.run_id) + 1 || state.position || 0 : 0);

function line(state) {
  const progress = state.progress || {};
  const isRunning = state.status === "running";
  const part = isRunning && progress.total ? make("progress", { max: progress.total, value: progress.done, "aria-label": `${progress.done} of ${progress.total}` }) : null;
  const words = isRunning ? progress.phase || "running" : inLine(state) ? `queued, ${inLine(state)} in line` : state.status;
  return make("tr", {},
    make("td", { class: "name" }, make("a", { href: `/runs/${encodeURIComponent(state.run_id)}` }, state.name || state.run_id)),
    make("td", {}, words, " ", part),
    make("td", { class: "num" }, state.priority),
    make("td", { class: "num wide" }, isRunning && progress.rate ? number(progress.rate) : "–"),
    make("td", { class: "num" }, isRunning && progress.left ? duration(progress.left) : "–"));
}

// ---- begin

let drawing = 0;
listen("/events", (state) => {
  states.set(state.run_id, state);
  drawing = drawing || requestAnimationFrame(() => { drawing = 0; if (service) showUnderWay(); });
});
refresh();
