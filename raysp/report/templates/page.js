"use strict";
// Draws the arcs over the measured positions of the components, and the charts in the page's own colours.
const data = JSON.parse(document.getElementById("data").textContent);
const text = document.getElementById("text");
const svg = document.getElementById("arcs");
const slider = document.getElementById("shown");
const PRINT_WIDTH = 680;

// Where each component lies; `slots` are the arcs that touch it, each of which gets a place of its own.
function anchors(arcs, origin) {
  const found = new Map();
  for (const arc of arcs) {
    for (const index of arc.components) {
      if (!found.has(index)) {
        const element = document.getElementById(`c${index}`);
        const box = element.getClientRects()[0] || element.getBoundingClientRect();
        found.set(index, {
          left: box.left - origin.left, width: box.width, top: box.top - origin.top, bottom: box.bottom - origin.top, slots: [],
        });
      }
      found.get(index).slots.push(arc);
    }
  }
  for (const [index, place] of found) place.slots.sort((a, b) => heading(a, index) - heading(b, index));
  return found;
}

// Arcs that go left leave on the left; of those that go the same way, the longer one leaves on the inside.
function heading(arc, index) {
  const others = arc.components.filter((other) => other !== index);
  const distance = others.reduce((sum, other) => sum + other - index, 0) / others.length;
  return distance === 0 ? 0 : 1 / distance;
}

function point(place, arc) {
  const { slots, width, left, top, bottom } = place;
  const shift = (slots.indexOf(arc) + 1) / (slots.length + 1) - 0.5;
  return {
    x: left + width / 2 + shift * Math.min(width * 0.9, 9 * slots.length), y: (top + bottom) / 2 + shift * Math.min(bottom - top, 6 * slots.length), top, bottom,
  };
}

// Between words of one line: an arch above it. Between lines: from the foot of the upper word to the head of the lower one.
function between(a, b, room) {
  if (Math.abs(a.top - b.top) < 4) {
    const lift = 6 + (room - 6) * (1 - Math.exp(-Math.abs(b.x - a.x) / 220));
    return { ends: [[a.x, a.top], [b.x, b.top]], controls: [[a.x, a.top - 1.3 * lift], [b.x, b.top - 1.3 * lift]] };
  }
  const [upper, lower] = a.top < b.top ? [a, b] : [b, a];
  const bend = Math.min(44, 0.6 * (lower.top - upper.bottom));
  return { ends: [[upper.x, upper.bottom], [lower.x, lower.top]], controls: [[upper.x, upper.bottom + bend], [lower.x, lower.top - bend]] };
}

// Between lines of a list: a bow in the margin, the wider the further apart.
function beside(a, b, margin, height) {
  const edge = margin - 4;
  const depth = 10 + (margin - 20) * Math.sqrt(Math.abs(b.y - a.y) / height);
  return { ends: [[edge, a.y], [edge, b.y]], controls: [[edge - 1.3 * depth, a.y], [edge - 1.3 * depth, b.y]] };
}

function dot([x, y]) {
  return `M${x - 1.6} ${y}a1.6 1.6 0 1 0 3.2 0a1.6 1.6 0 1 0 -3.2 0`;
}

// A set of three and more is a chain with a dot at every member, so that its arcs read as one.
function pathOf(arc, places, origin, style) {
  const listed = text.classList.contains("listed");
  const room = 0.52 * (parseFloat(style.lineHeight) || 50);
  const points = arc.components.map((index) => point(places.get(index), arc));
  let path = "";
  for (let i = 1; i < points.length; i += 1) {
    const curve = listed ? beside(points[i - 1], points[i], parseFloat(style.paddingLeft), origin.height) : between(points[i - 1], points[i], room);
    path += `M${curve.ends[0]}C${curve.controls[0]} ${curve.controls[1]} ${curve.ends[1]}`;
    if (points.length > 2) path += curve.ends.map(dot).join("");
  }
  return path;
}

function drawArcs() {
  if (!svg) return;
  const origin = text.getBoundingClientRect();
  const style = getComputedStyle(text);
  const shown = slider ? Number(slider.value) : data.arcs.length;
  svg.replaceChildren();
  const drawn = data.arcs.slice(0, shown);
  const places = anchors(drawn, origin);
  // The weakest first, so that the strongest lie on top.
  for (const arc of drawn.reverse()) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", `arc ${arc.kind}`);
    path.setAttribute("d", pathOf(arc, places, origin, style));
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
