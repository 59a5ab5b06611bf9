// Compares runs: which, what differs, how far their effects agree, and which interactions all or some of them found.

import { ask, clear, later, make, number, tell } from "./raysp.js";
import { heading, markSorted } from "./sorting.js";
import { classOf } from "./standing.js";

const { drawChart, listenForTips, scale, virtualTable } = window.raysp;
const at = (id) => document.getElementById(id);
const MOST = Number(at("picked").dataset.most);
const APART = 0.25; // a difference that is marked, as a share of the strongest effect
const MATCHES = 8;
const LONG = 160; // characters of a value that is scrolled
const LETTERS = "ABCDEFGHIJKL";
let [ids, names, told, turn] = [[], new Map(), null, 0];

const nameOf = (run) => run.name || run.run_id;
const r2 = (value) => (value === null || value === undefined ? "–" : value.toFixed(2).replace("-", "−"));

// ---- which runs

function fromAddress() {
  ids = (new URLSearchParams(location.search).get("runs") ?? "").split(",").map((each) => each.trim()).filter(Boolean).slice(0, MOST);
}

function pick(next) {
  ids = [...new Set(next)];
  history.pushState(null, "", ids.length ? `/compare?runs=${ids.map(encodeURIComponent).join(",")}` : "/compare");
  load();
}

function showPicks() {
  clear(at("picks"), ids.map((id, place) => make(
    "li", {}, make("b", { class: "letter" }, LETTERS[place]), make("a", { href: `/runs/${encodeURIComponent(id)}` }, names.get(id) ?? id),
    make("button", { type: "button", class: "quiet", "aria-label": `Remove ${names.get(id) ?? id}`, click: () => { pick(ids.filter((each) => each !== id)); at("find").focus(); } }, "×"),
  )));
  at("find").disabled = ids.length >= MOST;
  at("find").placeholder = ids.length >= MOST ? `at most ${MOST} runs` : "id, name, model or interaction";
}

// ---- finding another: a combobox

let active = -1;
const options = () => [...at("matches").children];

function close() {
  at("matches").hidden = true;
  at("find").setAttribute("aria-expanded", "false");
  at("find").removeAttribute("aria-activedescendant");
  active = -1;
}

function activate(place) {
  const every = options();
  active = (place + every.length) % every.length;
  every.forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
  at("find").setAttribute("aria-activedescendant", every[active].id);
  every[active].scrollIntoView({ block: "nearest" });
}

async function search() {
  const words = at("find").value.trim();
  try {
    const { runs } = await ask(`/runs?${new URLSearchParams({ status: "done", limit: String(MATCHES + ids.length), ...(words ? { q: words } : {}) })}`);
    if (words !== at("find").value.trim() || document.activeElement !== at("find")) return;
    const fresh = runs.filter((run) => !ids.includes(run.run_id)).slice(0, MATCHES);
    clear(at("matches"), fresh.map((run, i) => make(
      "li", { role: "option", id: `match-${i}`, "aria-selected": "false", "data-run": run.run_id, mousedown: (event) => { event.preventDefault(); add(run.run_id); } },
      make("span", {}, nameOf(run)), make("small", {}, [run.lens, run.model, run.verdict, run.strongest].filter(Boolean).join(" · ")),
    )), fresh.length ? [] : make("li", { class: "none", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "No finished run matches."));
    for (const run of fresh) names.set(run.run_id, nameOf(run));
    at("matches").hidden = false;
    at("find").setAttribute("aria-expanded", "true");
    active = -1;
  } catch (error) {
    tell(error.message, { bad: true });
  }
}

function add(id) {
  at("find").value = "";
  close();
  pick([...ids, id]);
}

function listenToFinder() {
  at("find").addEventListener("input", later(150, search));
  at("find").addEventListener("focus", search);
  at("find").addEventListener("blur", close);
  at("find").addEventListener("keydown", (event) => {
    const open = !at("matches").hidden && options().some((option) => option.dataset.run);
    if (event.key === "Escape") close();
    else if (event.key === "ArrowDown" && !open) search();
    else if (open && event.key === "ArrowDown") activate(active + 1);
    else if (open && event.key === "ArrowUp") activate(active < 0 ? -1 : active - 1);
    else if (open && event.key === "Enter" && active >= 0) add(options()[active].dataset.run);
    else return;
    event.preventDefault();
  });
}

// ---- tables

function sided(table, rows, corner = "") {
  clear(
    table,
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, corner), told.runs.map((run, i) => make("th", { scope: "col" }, make("b", { class: "letter" }, LETTERS[i]), " ", make("a", { href: `/runs/${encodeURIComponent(run.run_id)}` }, nameOf(run)))))),
    make("tbody", {}, rows.map(([title, cells]) => make("tr", {}, make("th", { scope: "row" }, title), cells.map((cell) => make("td", {}, cell))))),
  );
}

function showVerdicts() {
  const { runs } = told;
  const ranged = (run) => (run.r2_lo === null ? r2(run.r2) : [make("b", {}, r2(run.r2)), make("small", {}, `${r2(run.r2_lo)} to ${r2(run.r2_hi)}`)]);
  sided(at("verdicts"), [
    ["verdict", runs.map((run) => make("span", { class: `status ${classOf(run.verdict ?? run.status)}` }, make("span", { class: "mark", "aria-hidden": "true" }), run.verdict ?? run.status))],
    ["R² with interactions", runs.map(ranged)],
    ["R² of single effects alone", runs.map((run) => r2(run.r2_singles))],
    ["components", runs.map((run) => run.n.toLocaleString("en"))],
    ["value, intact", runs.map((run) => number(run.value_intact))],
    ["value, everything removed", runs.map((run) => number(run.value_empty))],
  ]);
}

function written(value) {
  if (value === null || value === undefined) return make("span", { class: "faint" }, "–");
  const words = typeof value === "string" ? value : JSON.stringify(value);
  return words.length > LONG ? make("span", { class: "value long", tabindex: "0" }, words) : make("span", { class: "value" }, words);
}

function showDifferences() {
  at("same-question").hidden = told.differences.length > 0;
  at("differing").hidden = !told.differences.length;
  sided(at("differences"), told.differences.map(({ field, values }) => [make("code", {}, field), values.map(written)]));
}

function showAgreement() {
  const { runs, pairs } = told;
  const ranked = (value) => (value === null || value === undefined ? "–" : value.toFixed(2).replace("-", "−"));
  const [pair] = pairs;
  at("matrix-place").hidden = runs.length < 3;
  if (runs.length < 3) {
    at("agreement-words").textContent = pair.shared_components < 2
      ? "The runs share fewer than two components, so their effects cannot be matched."
      : `Spearman’s rank correlation is ${ranked(pair.singles_rank_correlation)} over ${pair.shared_components.toLocaleString("en")} shared components; of the ${at("picked").dataset.top} strongest interactions of each, ${pair.top_interactions_shared} are shared.`;
    return;
  }
  at("agreement-words").textContent = "Spearman’s rank correlation of the single effects of each pair, with the number of components that both have. 1 means the same order.";
  const between = (i, j) => pairs.find(({ runs: [one, other] }) => [one, other].includes(runs[i].run_id) && [one, other].includes(runs[j].run_id));
  sided(at("matrix"), runs.map((run, i) => [make("span", {}, make("b", { class: "letter" }, LETTERS[i]), " ", nameOf(run)), runs.map((_, j) => {
    if (i === j) return make("span", { class: "faint" }, "1");
    const found = between(i, j);
    return [make("b", {}, ranked(found.singles_rank_correlation)), make("small", {}, `${found.shared_components.toLocaleString("en")} shared`)];
  })]));
  runs.forEach((_, i) => runs.forEach((__, j) => {
    if (i === j) return;
    const cell = at("matrix").tBodies[0].rows[i].cells[j + 1];
    const strength = between(i, j).singles_rank_correlation;
    cell.dataset.s = String(Math.round(20 * Math.abs(strength ?? 0)));
    cell.className = strength > 0 ? "pos" : strength < 0 ? "neg" : "";
  }));
}

// ---- aligned components

let [aligned, sorting, apart, strongest, shown] = [null, { by: "spread", down: true }, [], 0, null];
const READINGS = {
  average: "Effects are on average over contexts.",
  intact: "Effects are at the intact input.",
  null: "The runs do not share a reading of single effects: some have effects at the intact input only, others on average over contexts only. Each is shown in its own.",
};
const known = (value) => value !== null && value !== undefined;

function headings(sort) {
  return [
    { title: heading("place", "component", sort), className: "" },
    ...told.runs.map((run, i) => ({ title: heading(String(i), make("span", {}, LETTERS[i]), sort, nameOf(run)), className: "num" })),
    { title: heading("spread", "difference", sort), className: "num" },
  ];
}

function showAligned() {
  const { labels, effects } = told.components;
  const some = labels.length > 0 && effects.some((column) => column.some(known));
  at("aligned-section").hidden = !some;
  if (!some) return;
  strongest = Math.max(...effects.flat().filter(known).map(Math.abs), 0);
  apart = labels.map((_, i) => {
    const there = effects.map((column) => column[i]).filter(known);
    return there.length < 2 ? null : Math.max(...there) - Math.min(...there);
  });
  const shared = apart.filter(known).length;
  const missing = labels.length - shared;
  const negated = told.runs.filter((_, i) => told.negated[i]).map(nameOf);
  at("aligned-words").textContent = [
    READINGS[told.components.reading],
    told.same_components ? "The runs have the same components." : `Components are matched by their labels: ${shared.toLocaleString("en")} in more than one run${missing ? `, ${missing.toLocaleString("en")} in one only` : ""}.`,
    "Marked rows differ by more than a quarter of the strongest effect.",
    negated.length ? `Effects of ${negated.join(", ")} are on a cost, and shown negated.` : "",
  ].filter(Boolean).join(" ");
  at("aligned").style.setProperty("--count", String(told.runs.length + 1));
  ({ show: shown } = scale([strongest], 3));
  aligned = virtualTable(at("aligned"), {
    label: "Single effects of each run", className: "aligned", columns: headings((by) => { sorting = { by, down: sorting.by === by ? !sorting.down : by !== "place" }; order(); }),
    row(i, element) {
      element.classList.toggle("differs", apart[i] !== null && apart[i] > APART * strongest);
      return [make("span", { class: "clip" }, labels[i]), ...effects.map((column) => shaded(column[i])), known(apart[i]) ? shown(apart[i], false) : "–"];
    },
    tip: (i) => `${labels[i].trim()}: ${told.runs.map((run, k) => `${nameOf(run)} ${shown(effects[k][i])}`).join(", ")}`,
    onPoint() {},
  });
  order();
  showAxes();
}

function shaded(value) {
  if (!known(value)) return make("span", { class: "faint" }, "–");
  return make("span", { class: `shaded ${value > 0 ? "pos" : value < 0 ? "neg" : ""}`, "data-s": String(strongest ? Math.round(20 * (Math.abs(value) / strongest)) : 0) }, shown(value));
}

function order() {
  const { labels, effects } = told.components;
  const words = at("filter").value.trim().toLowerCase();
  const only = at("differing-only").checked;
  const found = labels.flatMap((label, i) => (label.toLowerCase().includes(words) && (!only || apart[i] > APART * strongest) ? [i] : []));
  const worth = sorting.by === "place" ? (i) => i : sorting.by === "spread" ? (i) => apart[i] : (i) => effects[Number(sorting.by)][i];
  const sign = sorting.down ? -1 : 1;
  found.sort((i, j) => (known(worth(j)) - known(worth(i))) || sign * (worth(i) - worth(j)) || i - j);
  aligned.show(found);
  at("aligned-count").textContent = `${found.length.toLocaleString("en")} of ${labels.length.toLocaleString("en")} components`;
  markSorted(at("aligned"), sorting.by, sorting.down);
}

function showAxes() {
  const chosen = (i) => told.runs.map((run, k) => make("option", { value: String(k), selected: k === i }, `${LETTERS[k]} ${nameOf(run)}`));
  clear(at("across"), chosen(0));
  clear(at("up"), chosen(1));
  at("axes").hidden = told.runs.length < 3;
  scatter();
}

function scatter() {
  const [i, j] = [Number(at("across").value), Number(at("up").value)];
  const { labels, effects } = told.components;
  const both = labels.flatMap((_, k) => (known(effects[i][k]) && known(effects[j][k]) ? [k] : []));
  at("scatter").hidden = both.length < 2;
  if (both.length < 2) return;
  const of = (run) => both.map((k) => effects[run][k]);
  const title = (run) => `${LETTERS[run]}: ${nameOf(told.runs[run])}`;
  drawChart(at("scatter"), { kind: "points", x: title(i), y: title(j), diagonal: true, zero: true, series: [{ name: "", look: "ink", symbol: "circle", x: of(i), y: of(j), texts: both.map((k) => labels[k].trim()) }] });
}

// ---- interactions

let [sets, kind] = [null, "all"];

const countOf = (row) => row.ranks.filter((rank) => rank !== null).length;

function groups() {
  const every = told.runs.length;
  const only = told.runs.map((run, i) => [`only-${i}`, `only ${LETTERS[i]}`, (row) => countOf(row) === 1 && row.ranks[i] !== null]);
  return [["all", every === 2 ? "found by both" : "found by all", (row) => countOf(row) === every], ...(every > 2 ? [["some", "by some", (row) => countOf(row) > 1 && countOf(row) < every]] : []), ...only];
}

function showSets() {
  at("sets-words").textContent = told.interactions.length ? "The strongest interactions of each run. A dash: not found by that run; a blank: it has not all of these components." : "None of these runs found interactions.";
  at("sets").hidden = !told.interactions.length;
  const counted = groups().map(([name, title, has]) => [name, title, told.interactions.flatMap((row, i) => (has(row) ? [i] : []))]);
  kind = (counted.find(([name, , found]) => name === kind && found.length) ?? counted.find(([, , found]) => found.length) ?? counted[0])[0];
  const choose = (name) => {
    kind = name;
    for (const button of at("sets-tabs").children) button.setAttribute("aria-pressed", String(button.dataset.group === name));
    sets.show(counted.find(([each]) => each === name)[2]);
  };
  clear(at("sets-tabs"), told.interactions.length ? counted.map(([name, title, found]) => make("button", { type: "button", class: "button", "data-group": name, "aria-pressed": "false", click: () => choose(name) }, `${title} (${found.length.toLocaleString("en")})`)) : []);
  if (!told.interactions.length) return;
  at("sets").style.setProperty("--count", String(told.runs.length));
  const { show: worth } = scale(told.interactions.flatMap((row) => row.values), 3);
  sets = virtualTable(at("sets"), {
    label: "Interactions of each run", className: "aligned",
    columns: [{ title: "set", className: "" }, ...told.runs.map((run, i) => ({ title: make("span", { title: nameOf(run) }, LETTERS[i]), className: "num" }))],
    row: (i) => {
      const row = told.interactions[i];
      const kindOf = row.kinds.find(known) ?? "additive";
      return [make("span", { class: `clip kind ${kindOf}` }, row.labels.join(" × ")), ...row.values.map((value, k) => {
        if (!row.possible[k]) return "";
        return known(value) ? make("span", {}, worth(value), make("small", { class: "rank" }, ` #${row.ranks[k]}`)) : make("span", { class: "faint" }, "–");
      })];
    },
    tip: (i) => `${told.interactions[i].labels.join(" × ")}: ${told.runs.map((run, k) => `${nameOf(run)} ${known(told.interactions[i].values[k]) ? `${worth(told.interactions[i].values[k])} (${told.interactions[i].kinds[k] ?? "–"})` : "not found"}`).join(", ")}`,
    onPoint() {},
  });
  choose(kind);
}

// ---- all of it

async function load() {
  turn += 1;
  const mine = turn;
  showPicks();
  if (ids.length < 2) {
    at("comparison").hidden = true;
    at("state").textContent = ids.length ? "Add another run to compare it with." : "Add two or more runs: other prompts, models, lenses, seeds or budgets.";
    document.title = "Compare · raysp";
    if (ids.length === 1 && !names.has(ids[0])) {
      const run = await ask(`/runs/${encodeURIComponent(ids[0])}`).catch(() => null);
      if (run && mine === turn) { ids = [run.run_id]; names.set(run.run_id, nameOf(run)); showPicks(); }
    }
    return;
  }
  at("state").textContent = "Comparing …";
  try {
    const answer = await ask(`/compare?runs=${ids.map(encodeURIComponent).join(",")}`);
    if (mine !== turn) return;
    told = answer;
    ids = told.runs.map((run) => run.run_id);
    for (const run of told.runs) names.set(run.run_id, nameOf(run));
    showPicks();
    at("comparison").hidden = false;
    showVerdicts();
    showDifferences();
    showAgreement();
    showAligned();
    showSets();
    at("state").textContent = "";
    document.title = `${told.runs.map(nameOf).join(" and ")} · raysp`;
  } catch (error) {
    if (mine !== turn) return;
    at("comparison").hidden = true;
    at("state").textContent = error.message;
  }
}

listenForTips();
listenToFinder();
at("filter").addEventListener("input", () => { if (aligned) order(); });
at("differing-only").addEventListener("change", () => { if (aligned) order(); });
for (const id of ["across", "up"]) at(id).addEventListener("change", scatter);
addEventListener("popstate", () => { fromAddress(); load(); });
fromAddress();
load();
