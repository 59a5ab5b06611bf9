// Controls, highlighting, tooltips and charts. Interactions are drawn by arcs.js (text) or graph.js (parts of a model).
const data = JSON.parse(document.getElementById("data").textContent);
const field = document.getElementById("text") || document.getElementById("model");
const svg = document.getElementById("arcs");
const slider = document.getElementById("shown");
const PRINT_WIDTH = 680;

function shape(name, attributes, words = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = words;
  return element;
}

function shown() {
  return data.arcs.slice(0, slider ? Number(slider.value) : data.arcs.length);
}

function drawInteractions() {
  if (!svg) return;
  svg.replaceChildren();
  if (data.graph) drawGraph(shown());
  else drawArcs(shown());
  const count = document.getElementById("shown-count");
  if (count) count.textContent = String(shown().length);
}

function focusOn(arcs, extra) {
  const ranks = new Set(arcs.map((arc) => String(arc.rank)));
  const members = new Set(arcs.flatMap((arc) => arc.components).concat(extra === undefined ? [] : [extra]));
  field.classList.toggle("focus", ranks.size > 0);
  for (const element of svg.querySelectorAll("[data-rank]")) element.classList.toggle("on", ranks.has(element.dataset.rank));
  for (const element of field.querySelectorAll(".c")) element.classList.toggle("on", ranks.size > 0 && members.has(Number(element.dataset.i)));
}

function listen() {
  if (!svg) return;
  const byRank = new Map(data.arcs.map((arc) => [String(arc.rank), arc]));
  for (const row of document.querySelectorAll("tr[data-rank]")) {
    const arc = byRank.get(row.dataset.rank);
    if (!arc) continue;
    const on = () => {
      if (slider && data.arcs.indexOf(arc) >= Number(slider.value)) { slider.value = String(data.arcs.indexOf(arc) + 1); drawInteractions(); }
      focusOn([arc]);
    };
    for (const event of ["mouseenter", "focus"]) row.addEventListener(event, on);
    for (const event of ["mouseleave", "blur"]) row.addEventListener(event, () => focusOn([]));
  }
  for (const element of field.querySelectorAll(".c")) listenTo(element, Number(element.dataset.i));
  if (slider) slider.addEventListener("input", drawInteractions);
}

// Pointing at a component highlights its interactions.
function listenTo(element, index) {
  element.addEventListener("mouseenter", () => {
    const touching = shown().filter((arc) => arc.components.includes(index));
    if (touching.length) focusOn(touching, index);
  });
  element.addEventListener("mouseleave", () => focusOn([]));
}

// Elements with `data-tip` show it beside the pointer at once, and when tapped.
function tell() {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  document.addEventListener("mouseover", (event) => {
    const told = event.target.closest("[data-tip]");
    tip.textContent = told ? told.dataset.tip : "";
    tip.hidden = !told;
  });
  document.addEventListener("mousemove", (event) => {
    if (tip.hidden) return;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
  });
  tip.hidden = true;
}

// Replaces names of CSS variables in colour fields; all other text is data and stays unchanged.
function coloured(value, style, key = "") {
  if (typeof value === "string") return /color$/.test(key) && value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value.map((item) => coloured(item, style, key));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, style, name)]));
  return value;
}

function drawCharts() {
  const style = getComputedStyle(document.documentElement);
  for (const place of document.querySelectorAll("[data-chart]")) {
    const figure = data.charts[place.dataset.chart];
    const layout = coloured(figure.layout, style);
    layout.font.family = getComputedStyle(document.body).fontFamily;
    layout.showlegend = figure.data.filter((trace) => trace.name && trace.showlegend !== false).length > 1;
    Plotly.react(place, coloured(figure.data, style), layout, { displayModeBar: false, responsive: true });
  }
}

function draw() {
  drawInteractions();
  drawCharts();
}

listen();
listenToQueries();
tell();
draw();
if (svg) new ResizeObserver(drawInteractions).observe(field);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
// Print in light colours at a fixed width.
addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  if (field) field.style.width = `${Math.min(field.clientWidth, PRINT_WIDTH)}px`;
  draw();
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.theme;
  if (field) field.style.width = "";
  draw();
});
