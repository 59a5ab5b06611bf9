// The SQL console: asks, shows the answer as a table and a chart, and remembers what was asked.

import { Grid, isNumber, textOf } from "./grid.js";
import { ask, clear, duration, make, patiently, tell } from "./raysp.js";

const HISTORY = "raysp.sql.history";
const REMEMBERED = 40;
const MOST_ROWS = 20000; // of an answer shown here; downloads have more
const LONGEST_LINK = 8000; // characters, as the service allows
const MOST_BARS = 60;

const byId = (id) => document.getElementById(id);
const field = byId("query");
const grid = new Grid(byId("grid"));
let running = null;
let answer = null;

// ---- ask

async function run() {
  const query = field.value.trim();
  if (!query) { field.focus(); return; }
  running?.abort();
  const mine = running = new AbortController();
  byId("cancel").hidden = false;
  byId("query-note").textContent = "Running…";
  byId("problem").hidden = true;
  const began = performance.now();
  try {
    const found = await patiently(() => ask("/sql", { body: { query, limit: MOST_ROWS, format: "json" }, signal: mine.signal }), () => note("The service is busy; asking again…"));
    if (mine !== running) return;
    remember(query);
    show(query, found, (performance.now() - began) / 1000);
    note("");
  } catch (error) {
    if (mine !== running) return;
    note(error.name === "AbortError" ? "Cancelled." : "");
    if (error.name !== "AbortError") refuse(error, query);
  }
  byId("cancel").hidden = true;
  running = null;
}

function note(text) {
  byId("query-note").textContent = text || "Ctrl+Enter or ⌘+Enter runs it.";
}

// A problem as one line; what it is about is selected where DuckDB tells the place.
function refuse(error, query) {
  byId("answer").hidden = true;
  byId("problem").textContent = error.message.replace(/^sql: /, "");
  byId("problem").hidden = false;
  const place = /\(line (\d+)(?:, column (\d+))?\)/.exec(error.message);
  if (!place) return;
  const lines = query.split("\n");
  const before = lines.slice(0, place[1] - 1).reduce((sum, each) => sum + each.length + 1, 0) + (place[2] ? place[2] - 1 : 0);
  const length = place[2] ? /^\w*/.exec(query.slice(before))[0].length || 1 : lines[place[1] - 1]?.length || 0;
  const start = field.value.indexOf(query) + before;
  field.focus();
  field.setSelectionRange(start, start + length);
}

function show(query, found, seconds) {
  answer = found;
  const rows = found.rows.length;
  const count = `${rows.toLocaleString("en")} row${rows === 1 ? "" : "s"}`;
  byId("about").textContent = [found.truncated ? `The first ${count}; there are more.` : `${count}.`, `Answered in ${duration(seconds)}.`, found.note ? `${found.note[0].toUpperCase()}${found.note.slice(1)}.` : ""].filter(Boolean).join(" ");
  const link = `/sql?q=${encodeURIComponent(query)}`;
  const short = query.length <= LONGEST_LINK;
  clear(byId("links"), short
    ? ["csv", "parquet", "json"].map((form) => make("a", { href: `/api/v1${link}&format=${form}`, download: `answer.${form}` }, form === "parquet" ? "Parquet" : form.toUpperCase())).concat(make("a", { href: link }, "Permalink"))
    : make("span", { class: "note" }, "A query of this length has no link; use POST /api/v1/sql to download."));
  history.replaceState(null, "", short ? link : "/sql");
  byId("answer").hidden = false;
  grid.show(found.columns, found.rows);
  offer();
}

// ---- what was asked before

function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(HISTORY));
    return Array.isArray(found) ? found.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}

function store(queries) {
  try {
    localStorage.setItem(HISTORY, JSON.stringify(queries));
  } catch { /* storage is full or switched off: nothing is remembered */ }
  showHistory();
}

function remember(query) {
  store([query, ...remembered().filter((each) => each !== query)].slice(0, REMEMBERED));
}

function showHistory() {
  const queries = remembered();
  const items = queries.map((query) => make("li", {},
    make("button", { type: "button", title: query, click: () => put(query) }, query.replace(/\s+/g, " ")),
    make("button", { type: "button", class: "forget", "aria-label": `Remove ${query.slice(0, 60)}`, click: () => store(remembered().filter((each) => each !== query)) }, "×")));
  const all = make("li", {}, make("button", { type: "button", click: () => store([]) }, "Remove all"));
  clear(byId("history"), items.length ? [...items, all] : make("li", { class: "note" }, "Nothing yet."));
}

function put(query) {
  field.value = query;
  field.focus();
  run();
}

// ---- schema

function insert(name) {
  field.focus();
  const before = field.value.slice(0, field.selectionStart);
  field.setRangeText(before && !/[\s(.,]$/.test(before) ? ` ${name}` : name, field.selectionStart, field.selectionEnd, "end");
}

async function showSchema() {
  let tables;
  try {
    ({ tables } = await patiently(() => ask("/schema")));
  } catch (error) {
    clear(byId("schema"), make("p", { class: "note" }, error.message));
    return;
  }
  const inserter = (name, label) => make("button", { type: "button", "aria-label": label, click: () => insert(name) }, name);
  const places = tables.map(({ name, columns }) => {
    const items = columns.map((column) => ({ name: column.name, item: make("li", {}, inserter(column.name, `Insert ${column.name}`), make("small", {}, column.type.toLowerCase())) }));
    const place = make("details", {}, make("summary", {}, name), make("ul", {}, make("li", {}, inserter(name, `Insert ${name}`), make("small", {}, "the whole table")), items.map(({ item }) => item)));
    return { name, place, items };
  });
  clear(byId("schema"), places.map(({ place }) => place));
  const narrow = () => {
    const wanted = byId("filter").value.trim().toLowerCase();
    for (const { name, place, items } of places) {
      const whole = name.toLowerCase().includes(wanted);
      const some = items.filter((each) => each.name.toLowerCase().includes(wanted));
      place.hidden = !whole && !some.length;
      place.open = Boolean(wanted) && !whole;
      for (const each of items) each.item.hidden = !whole && !some.includes(each);
    }
  };
  byId("filter").addEventListener("input", narrow);
  narrow(); // something may have been typed by now
}

// ---- chart

const valuesOf = (c) => answer.rows.map((row) => row[c]);
const isTime = (column) => /^(timestamp|date)/.test(column.type);

// Times are drawn as numbers, all other texts as labels.
function numbersOf(c) {
  return isTime(answer.columns[c]) ? valuesOf(c).map((value) => (value === null ? null : Date.parse(value))) : valuesOf(c).map((value) => (isNumber(value) ? value : null));
}

function offer() {
  const { columns } = answer;
  const numeric = columns.map((_, c) => grid.rows.length > 0 && Boolean(grid.numeric?.[c]));
  const shown = columns.map((column, c) => ({ column, c })).filter(({ c }) => numeric[c]);
  byId("charting").hidden = !shown.length;
  if (!shown.length) return;
  const option = ({ column, c }) => make("option", { value: c }, column.name);
  clear(byId("along"), make("option", { value: "row" }, "row number"), columns.map((column, c) => option({ column, c })));
  clear(byId("shown"), shown.map(option));
  const text = columns.findIndex((column, c) => !numeric[c] && !isTime(column));
  const time = columns.findIndex(isTime);
  const [mark, along, value] = text >= 0 && answer.rows.length <= MOST_BARS ? ["bars", text, shown[0].c]
    : time >= 0 ? ["curves", time, shown[0].c]
      : shown.length > 1 ? ["points", shown[0].c, shown[1].c] : ["curves", "row", shown[0].c];
  byId("mark").value = mark;
  byId("along").value = String(along);
  byId("shown").value = String(value);
  draw();
}

function draw() {
  if (!answer || !byId("charting").open) return;
  const [mark, along, shown] = [byId("mark").value, byId("along").value, Number(byId("shown").value)];
  const name = answer.columns[shown].name;
  const all = along === "row" ? answer.rows.map((_, i) => i + 1) : valuesOf(Number(along));
  const title = along === "row" ? "row" : answer.columns[Number(along)].name;
  byId("chart-note").textContent = "";
  if (mark === "bars") {
    const values = numbersOf(shown).slice(0, MOST_BARS);
    if (answer.rows.length > MOST_BARS) byId("chart-note").textContent = `The first ${MOST_BARS} rows.`;
    window.raysp.drawChart(byId("chart"), { kind: "bars", x: name, labels: all.slice(0, MOST_BARS).map((value) => (value === null ? "null" : textOf(value))), values });
    return;
  }
  const x = along === "row" ? all : numbersOf(Number(along));
  if (!x.some((value) => value !== null)) {
    byId("chart-note").textContent = `${title} has no numbers; draw it as bars.`;
    clear(byId("chart"));
    return;
  }
  const pairs = x.map((value, i) => [value, numbersOfShown(shown, i)]).filter(([a, b]) => a !== null && b !== null);
  if (mark === "curves") pairs.sort(([a], [b]) => a - b);
  const isMoment = along !== "row" && isTime(answer.columns[Number(along)]);
  const begin = isMoment ? Math.min(...pairs.map(([a]) => a)) : 0;
  const series = { name, look: mark === "curves" ? "pos" : "ink", symbol: mark === "curves" && pairs.length > 60 ? null : "circle", dash: "solid", x: pairs.map(([a]) => (isMoment ? (a - begin) / 1000 : a)), y: pairs.map(([, b]) => b) };
  window.raysp.drawChart(byId("chart"), { kind: mark, x: isMoment ? `${title}, seconds after ${new Date(begin).toISOString().slice(0, 19).replace("T", " ")}` : title, y: name, series: [series] });
}

const numbersOfShown = (c, i) => (isNumber(answer.rows[i][c]) ? answer.rows[i][c] : null);

// ---- begin

byId("console").addEventListener("submit", (event) => { event.preventDefault(); run(); });
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
});
byId("cancel").addEventListener("click", () => running?.abort());
for (const button of document.querySelectorAll("[data-query]")) button.addEventListener("click", () => put(button.dataset.query));
for (const each of ["mark", "along", "shown"]) byId(each).addEventListener("change", draw);
byId("charting").addEventListener("toggle", draw);
addEventListener("storage", (event) => { if (event.key === HISTORY) showHistory(); });

showHistory();
showSchema().catch((error) => tell(error.message, { bad: true }));
const given = new URLSearchParams(location.search).get("q");
if (given) {
  field.value = given;
  run();
}
