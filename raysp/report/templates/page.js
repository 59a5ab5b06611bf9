"use strict";
// Draws the arcs over the measured positions of the components, and the charts in the page's own colours.
const data = JSON.parse(document.getElementById("data").textContent);
const text = document.getElementById("text");
const svg = document.getElementById("arcs");
const slider = document.getElementById("shown");
const PRINT_WIDTH = 680;

function anchor(index, origin) {
  const element = document.getElementById(`c${index}`);
  const boxes = element.getClientRects();
  const box = boxes[0] || element.getBoundingClientRect();
  return {
    x: box.left + box.width / 2 - origin.left, left: box.left - origin.left,
    top: box.top - origin.top, bottom: box.bottom - origin.top, middle: (box.top + box.bottom) / 2 - origin.top,
  };
}

// Between words of one line: an arch above it. Between lines: from the foot of the upper word to the head of the lower one.
function between(a, b, room) {
  if (Math.abs(a.top - b.top) < 4) {
    const lift = Math.min(room, 8 + 0.16 * Math.abs(b.x - a.x));
    return `M${a.x} ${a.top}C${a.x} ${a.top - 1.3 * lift} ${b.x} ${b.top - 1.3 * lift} ${b.x} ${b.top}`;
  }
  const [upper, lower] = a.top < b.top ? [a, b] : [b, a];
  const bend = Math.min(40, 0.55 * (lower.top - upper.bottom));
  return `M${upper.x} ${upper.bottom}C${upper.x} ${upper.bottom + bend} ${lower.x} ${lower.top - bend} ${lower.x} ${lower.top}`;
}

// Between lines of a list: a bow in the margin, the wider the further apart.
function beside(a, b, margin, height) {
  const depth = 14 + (margin - 22) * Math.sqrt(Math.abs(b.middle - a.middle) / height);
  const edge = margin - 4;
  return `M${edge} ${a.middle}C${edge - 1.3 * depth} ${a.middle} ${edge - 1.3 * depth} ${b.middle} ${edge} ${b.middle}`;
}

function dot(x, y, radius) {
  return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
}

function pathOf(arc, origin, style) {
  const listed = text.classList.contains("listed");
  const margin = parseFloat(style.paddingLeft);
  const room = 0.5 * (parseFloat(style.lineHeight) || 50);
  const points = arc.components.map((index) => anchor(index, origin));
  const lines = [];
  for (let i = 1; i < points.length; i += 1) {
    lines.push(listed ? beside(points[i - 1], points[i], margin, origin.height) : between(points[i - 1], points[i], room));
  }
  // Sets of three and more carry a dot at every member, so that their arcs read as one.
  if (points.length > 2) for (const p of points) lines.push(listed ? dot(margin - 4, p.middle, 1.5) : dot(p.x, p.top, 1.5));
  return lines.join("");
}

function drawArcs() {
  if (!svg) return;
  const origin = text.getBoundingClientRect();
  const style = getComputedStyle(text);
  const shown = slider ? Number(slider.value) : data.arcs.length;
  svg.replaceChildren();
  // The weakest first, so that the strongest lie on top.
  for (const arc of data.arcs.slice(0, shown).reverse()) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", `arc ${arc.kind}`);
    path.setAttribute("d", pathOf(arc, origin, style));
    path.setAttribute("stroke-width", (1.2 + 2.8 * arc.strength).toFixed(2));
    path.dataset.rank = arc.rank;
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = arc.tip;
    path.append(title);
    path.addEventListener("mouseenter", () => focusOn([arc]));
    path.addEventListener("mouseleave", () => focusOn([]));
    svg.append(path);
  }
  const count = document.getElementById("shown-count");
  if (count) count.textContent = String(shown);
}

function focusOn(arcs, extra) {
  const ranks = new Set(arcs.map((arc) => String(arc.rank)));
  const members = new Set(arcs.flatMap((arc) => arc.components).concat(extra === undefined ? [] : [extra]));
  text.classList.toggle("focus", ranks.size > 0);
  for (const path of svg.children) path.classList.toggle("on", ranks.has(path.dataset.rank));
  for (const element of text.querySelectorAll(".c")) element.classList.toggle("on", ranks.size > 0 && members.has(Number(element.dataset.i)));
}

function listen() {
  if (!svg) return;
  const byRank = new Map(data.arcs.map((arc) => [String(arc.rank), arc]));
  for (const row of document.querySelectorAll("tr[data-rank]")) {
    const arc = byRank.get(row.dataset.rank);
    if (!arc) continue;
    const on = () => {
      if (slider && data.arcs.indexOf(arc) >= Number(slider.value)) { slider.value = String(data.arcs.indexOf(arc) + 1); drawArcs(); }
      focusOn([arc]);
    };
    for (const event of ["mouseenter", "focus"]) row.addEventListener(event, on);
    for (const event of ["mouseleave", "blur"]) row.addEventListener(event, () => focusOn([]));
  }
  for (const element of text.querySelectorAll(".c")) {
    const index = Number(element.dataset.i);
    element.addEventListener("mouseenter", () => {
      const drawn = data.arcs.slice(0, slider ? Number(slider.value) : data.arcs.length);
      const touching = drawn.filter((arc) => arc.components.includes(index));
      if (touching.length) focusOn(touching, index);
    });
    element.addEventListener("mouseleave", () => focusOn([]));
  }
  if (slider) slider.addEventListener("input", drawArcs);
}

// Figures name their colours as CSS variables; any other text is a person's and stays as it is.
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
  drawArcs();
  drawCharts();
}

listen();
draw();
if (svg) new ResizeObserver(drawArcs).observe(text);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
// Paper is white and of a known width.
addEventListener("beforeprint", () => {
  document.documentElement.dataset.theme = "light";
  if (text) text.style.width = `${Math.min(text.clientWidth, PRINT_WIDTH)}px`;
  draw();
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.theme;
  if (text) text.style.width = "";
  draw();
});
