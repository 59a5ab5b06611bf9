"use strict";
// Charts as SVG: bars, points, curves and dumbbells, described as in `figures.py`. `raysp.drawChart(place, chart)` draws one into an element, whose aria-label
// names it, and again whenever its width changes. Colours are classes, so that themes and print need no redrawing.
(function (raysp) {
  const { framed, known, make, shape, showTip, writer } = raysp;
  const FONT = 12;
  const ROW = 22;
  const NEAR = 28; // pixels within which the pointer finds a mark
  const FOOT = 40;
  const drawn = new WeakMap();

  // ---- scales

  // Round numbers over a range, about so many.
  function ticksOf([low, high], wanted) {
    const rough = (high - low) / Math.max(wanted, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    const largest = Math.max(Math.abs(low), Math.abs(high));
    const exponent = largest >= 1e6 || largest < 1e-3 ? Math.floor(Math.log10(largest)) : 0;
    const { show, unit } = writer(Math.max(0, exponent - Math.floor(Math.log10(step) + 1e-9)), exponent);
    return { unit, values: Array.from({ length: Math.max(count, 0) }, (_, i) => (first + i) * step).map((at) => [at, show(at, false)]) };
  }

  function extent(values, also = []) {
    const [low, high] = [...values, ...also].reduce(([least, most], each) => (known(each) ? [Math.min(least, each), Math.max(most, each)] : [least, most]), [Infinity, -Infinity]);
    if (low > high) return [0, 1];
    return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high];
  }

  function padded([low, high], share) {
    return [low - share * (high - low), high + share * (high - low)];
  }

  const along = ([low, high], from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);

  // ---- text

  let canvas = null;
  function widthOf(text) {
    canvas = canvas || document.createElement("canvas").getContext("2d");
    canvas.font = `${FONT}px ${getComputedStyle(document.body).fontFamily}`;
    return canvas.measureText(text).width;
  }

  function fitted(text, room) {
    if (widthOf(text) <= room) return text;
    let [least, most] = [0, text.length];
    while (most - least > 1) {
      const middle = (least + most) >> 1;
      if (widthOf(`${text.slice(0, middle)}…`) <= room) least = middle;
      else most = middle;
    }
    return `${text.slice(0, least).trimEnd()}…`;
  }

  // ---- marks

  // The outline of a symbol around a point.
  function symbolAt(symbol, x, y, r) {
    const [a, b] = [x, y].map((value) => Number(value.toFixed(1)));
    if (symbol.startsWith("square")) return `M${a - r} ${b - r}h${2 * r}v${2 * r}h${-2 * r}z`;
    if (symbol.startsWith("diamond")) return `M${a} ${b - 1.35 * r}l${1.35 * r} ${1.35 * r}l${-1.35 * r} ${1.35 * r}l${-1.35 * r} ${-1.35 * r}z`;
    if (symbol.startsWith("cross")) return `M${a - r} ${b - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
    return `M${a - r} ${b}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  }

  const hollow = (symbol) => (/-open$|^cross/.test(symbol) ? " hollow" : "");
  const lookOf = (series) => `look-${series.look || "ink"}`;
  const symbolOf = (series) => series.symbol || "circle";

  // Marks over bars, which have a fill of either colour.
  const BESIDE = { look: "ink", symbol: "diamond" };

  function legendOf(chart) {
    const bars = chart.beside ? [{ name: chart.name, look: "pos", symbol: "square" }, { ...BESIDE, name: chart.beside.name }] : [];
    const named = (chart.series || bars).filter((series) => series.name);
    if (named.length + (chart.reference ? 1 : 0) < 2) return null;
    const legend = make("div", "keys");
    const key = (series, words, line) => {
      const item = make("span", lookOf(series));
      const picture = shape("svg", { width: 22, height: 12, "aria-hidden": "true" });
      if (line) picture.append(shape("path", { class: `line ${series.dash || "solid"}`, d: "M0 6H22" }));
      if (series.symbol !== null) picture.append(shape("path", { class: `mark${hollow(symbolOf(series))}`, d: symbolAt(symbolOf(series), 11, 6, 3.5) }));
      item.append(picture, make("span", "key-name", words));
      legend.append(item);
    };
    for (const series of named) key(series, series.name, chart.kind === "curves");
    if (chart.reference) key({ look: "muted", dash: "dot", symbol: null }, chart.reference.name, true);
    return legend;
  }

  // ---- axes

  // A number axis below the drawing: grid, labels, title.
  function floor(svg, frame, range, title, suffix = "") {
    const at = along(range, frame.left, frame.right);
    const ticks = ticksOf(range, Math.max(3, Math.round((frame.right - frame.left) / 75)));
    for (const [value, words] of ticks.values) {
      svg.append(shape("path", { class: value === 0 && frame.zero ? "zero" : "grid", d: `M${at(value).toFixed(1)} ${frame.top}V${frame.bottom}` }));
      svg.append(shape("text", { class: "tick middle", x: at(value).toFixed(1), y: frame.bottom + 16 }, words + suffix));
    }
    const titled = [title, ticks.unit].filter(Boolean).join(", ");
    svg.append(shape("text", { class: "title middle", x: (frame.left + frame.right) / 2, y: frame.bottom + 34 }, fitted(titled, frame.right - frame.left)));
    return at;
  }

  function wall(svg, frame, range, ticks) {
    const at = along(range, frame.bottom, frame.top);
    for (const [value, words] of ticks.values) {
      svg.append(shape("path", { class: value === 0 && frame.zero ? "zero" : "grid", d: `M${frame.left} ${at(value).toFixed(1)}H${frame.right}` }));
      svg.append(shape("text", { class: "tick end", x: frame.left - 7, y: at(value) + 4 }, words));
    }
    return at;
  }

  // Labels of rows, in at most two fifths of the width.
  function rows(svg, chart, width, top) {
    const left = Math.ceil(Math.min(0.4 * width, Math.max(...chart.labels.map((label) => widthOf(String(label))), 0)) + 10);
    const height = top + ROW * chart.labels.length;
    chart.labels.forEach((label, i) => svg.append(shape("text", { class: "tick end label", x: left - 8, y: top + ROW * (i + 0.5) + 4 }, fitted(String(label), left - 10))));
    return { left, right: width - 12, top, bottom: height, zero: true, at: (i) => top + ROW * (i + 0.5) };
  }

  // ---- the kinds of charts; each appends to the svg and returns its height and its marks: x, y and tooltip

  function bars(svg, chart, width) {
    const frame = rows(svg, chart, width, 4);
    const beside = chart.beside ? chart.beside.values : [];
    const at = floor(svg, frame, padded(extent([...chart.values, ...(chart.lo || []), ...(chart.hi || []), ...beside], [0]), 0.03), chart.x);
    const marks = [];
    chart.values.forEach((value, i) => {
      if (!known(value)) return;
      const [from, to] = [Math.min(at(0), at(value)), Math.max(at(0), at(value))];
      svg.append(shape("rect", { class: `bar look-${value < 0 ? "neg" : "pos"}`, x: from.toFixed(1), y: frame.at(i) - 7, width: Math.max(to - from, 0.5).toFixed(1), height: 14 }));
      const interval = chart.lo && chart.hi && known(chart.lo[i]) && known(chart.hi[i]);
      if (interval) svg.append(shape("path", { class: "error look-ink", d: `M${at(chart.lo[i]).toFixed(1)} ${frame.at(i)}H${at(chart.hi[i]).toFixed(1)}` }));
      const range = interval ? ` (${raysp.number(chart.lo[i], value)} to ${raysp.number(chart.hi[i], value)})` : "";
      const named = known(beside[i]) ? [` ${chart.name}`, `, ${raysp.number(beside[i])} ${chart.beside.name}`] : ["", ""];
      marks.push({ x: at(value), y: frame.at(i), row: true, tip: `${chart.labels[i]}: ${raysp.number(value)}${named[0]}${range}${named[1]}` });
    });
    if (chart.beside) points(svg, BESIDE, beside.map((value, i) => [known(value) ? at(value) : NaN, frame.at(i)]), 4);
    return { height: frame.bottom + FOOT, marks };
  }

  function dumbbells(svg, chart, width) {
    const frame = { ...rows(svg, chart, width, 4), zero: false };
    const at = floor(svg, frame, padded(extent(chart.series.flatMap((series) => series.values)), 0.05), chart.x);
    const marks = chart.labels.map((label, i) => {
      const ends = chart.series.map((series) => series.values[i]).filter(known).map(at);
      if (ends.length > 1) svg.append(shape("path", { class: "span", d: `M${Math.min(...ends).toFixed(1)} ${frame.at(i)}H${Math.max(...ends).toFixed(1)}` }));
      const told = chart.series.map((series) => `${series.name} ${raysp.number(series.values[i], 1, false)}`).join(", ");
      return { x: ends.length ? ends[ends.length - 1] : frame.left, y: frame.at(i), row: true, tip: `${label}: ${told}` };
    });
    for (const series of chart.series) points(svg, series, series.values.map((value, i) => [known(value) ? at(value) : NaN, frame.at(i)]), 4);
    return { height: frame.bottom + FOOT, marks };
  }

  // All points of a series are one path, so that thousands of them cost little.
  function points(svg, series, places, radius) {
    const d = places.filter(([x, y]) => known(x) && known(y)).map(([x, y]) => symbolAt(symbolOf(series), x, y, radius)).join("");
    if (d) svg.append(shape("path", { class: `mark ${lookOf(series)}${hollow(symbolOf(series))}`, d }));
  }

  function tipOf(chart, series, i) {
    if (series.tips) return series.tips[i];
    const told = `${chart.x} ${raysp.number(series.x[i])}, ${chart.y} ${raysp.number(series.y[i])}`;
    const name = chart.series.length > 1 ? series.name : "";
    return [series.texts ? series.texts[i] : name, told].filter(Boolean).join(": ");
  }

  // Series over two number axes.
  function plane(svg, chart, width) {
    const curves = chart.kind === "curves";
    const all = (name) => chart.series.flatMap((series) => series[name] || []);
    const referred = chart.reference ? [chart.reference.value] : [];
    let [xs, ys] = [extent(all("x")), extent([...all("y"), ...all("lo"), ...all("hi")], referred)];
    if (chart.diagonal) xs = ys = extent([...xs, ...ys]);
    [xs, ys] = [padded(xs, 0.05), padded(ys, 0.06)];
    const height = Math.round(Math.max(230, Math.min(curves ? 380 : 360, 0.8 * width)));
    const ticks = ticksOf(ys, Math.round(height / 55));
    const left = Math.ceil(Math.max(...ticks.values.map(([, words]) => widthOf(words)), 8)) + 12;
    const frame = { left, right: width - 14, top: 22, bottom: height - FOOT, zero: Boolean(chart.zero) };
    svg.append(shape("text", { class: "title", x: 0, y: 12 }, fitted([chart.y, ticks.unit].filter(Boolean).join(", "), width)));
    const y = wall(svg, frame, ys, ticks);
    const x = floor(svg, frame, xs, chart.x, chart.suffix);
    if (chart.diagonal) svg.append(shape("path", { class: "diagonal", d: `M${x(xs[0])} ${y(ys[0])}L${x(xs[1])} ${y(ys[1])}` }));
    if (chart.reference) svg.append(shape("path", { class: "line dot look-muted", d: `M${frame.left} ${y(chart.reference.value).toFixed(1)}H${frame.right}` }));
    const marks = chart.series.flatMap((series) => series.x.map((value, i) => ({ x: x(value), y: y(series.y[i]), tip: tipOf(chart, series, i) }))
      .filter((mark, i) => known(series.x[i]) && known(series.y[i])));
    // The first curve lies on top; of points, the last series.
    for (const series of curves ? [...chart.series].reverse() : chart.series) {
      const places = series.x.map((value, i) => (known(value) && known(series.y[i]) ? [x(value), y(series.y[i])] : [NaN, NaN]));
      if (curves) line(svg, series, places, y);
      if (!curves || series.symbol !== null) points(svg, series, places, curves ? 3.5 : places.length > 1000 ? 2 : 3);
    }
    return { height, marks };
  }

  function line(svg, series, places, y) {
    // A missing value is a gap.
    const d = places.map(([a, b], i) => (known(a) ? `${i && known(places[i - 1][0]) ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}` : "")).join("");
    if (d) svg.append(shape("path", { class: `line ${series.dash || "solid"} ${lookOf(series)}`, d }));
    if (!series.lo || !series.hi) return;
    const errors = places.map(([a], i) => (known(a) && known(series.lo[i]) && known(series.hi[i]) ? `M${a.toFixed(1)} ${y(series.lo[i]).toFixed(1)}V${y(series.hi[i]).toFixed(1)}` : "")).join("");
    if (errors) svg.append(shape("path", { class: `error ${lookOf(series)}`, d: errors }));
  }

  const KINDS = { bars, dumbbells, points: plane, curves: plane };

  // ---- pointing: the mark nearest to the pointer, or the next one by arrow keys

  function listen(state) {
    const { svg } = state;
    const tell = (mark) => {
      state.at = mark;
      if (state.ring) state.ring.remove();
      if (!mark) { showTip("", 0, 0); return; }
      state.ring = shape("circle", { class: "ring", cx: mark.x.toFixed(1), cy: mark.y.toFixed(1), r: 7 });
      svg.append(state.ring);
      const box = svg.getBoundingClientRect();
      const size = box.width / (state.width || 1);
      showTip(mark.tip, box.left + size * mark.x, box.top + size * mark.y);
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const size = (state.width || 1) / (box.width || 1);
      const [x, y] = [(event.clientX - box.left) * size, (event.clientY - box.top) * size];
      let [best, least] = [null, NEAR];
      for (const mark of state.marks) {
        const away = mark.row ? Math.abs(mark.y - y) + (Math.abs(mark.y - y) > ROW / 2 ? NEAR : 0) : Math.hypot(mark.x - x, mark.y - y);
        if (away < least) [best, least] = [mark, away];
      }
      if (best !== state.at) tell(best);
    });
    svg.addEventListener("pointerleave", () => tell(null));
    svg.addEventListener("blur", () => tell(null));
    svg.addEventListener("keydown", (event) => {
      const ordered = state.marks;
      const now = ordered.indexOf(state.at);
      const next = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: Math.max(now, 1) - 1, ArrowUp: Math.max(now, 1) - 1, Home: 0, End: ordered.length - 1 }[event.key];
      if (event.key === "Escape") tell(null);
      if (next === undefined || !ordered.length) return;
      event.preventDefault();
      tell(ordered[Math.min(next, ordered.length - 1)]);
    });
  }

  function redraw(place) {
    const state = drawn.get(place);
    const width = Math.floor(place.clientWidth);
    if (!width || width === state.width) return;
    state.width = width;
    state.at = state.ring = null;
    state.svg.replaceChildren();
    const { height, marks } = KINDS[state.chart.kind](state.svg, state.chart, width);
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) state.svg.setAttribute(name, value);
    state.marks = marks;
  }

  // Draw a chart into an element, in place of the one that it has.
  raysp.drawChart = function drawChart(place, chart) {
    let state = drawn.get(place);
    if (!state) {
      state = { svg: shape("svg", { class: "plot", role: "img", tabindex: 0 }), marks: [] };
      drawn.set(place, state);
      place.classList.add("chart");
      place.dataset.tips = "";
      listen(state);
      new ResizeObserver(framed(() => redraw(place))).observe(place);
    }
    state.svg.setAttribute("aria-label", place.getAttribute("aria-label") || chart.title || chart.x || "chart");
    Object.assign(state, { chart, width: 0 });
    const legend = legendOf(chart);
    place.replaceChildren(...(legend ? [legend] : []), state.svg);
    redraw(place);
  };
}(window.raysp));
