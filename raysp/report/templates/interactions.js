"use strict";
// The interactions of a run: which of them are drawn and listed, and what is highlighted. arcs.js (text) or graph.js (parts of a model) draws them.
(function (raysp) {
  const { framed, known, make, number, unpacked } = raysp;
  const { drawing } = raysp.data;
  if (!drawing) return;
  const field = document.getElementById("text") || document.getElementById("model");
  const [svg, slider, order, threshold] = ["arcs", "shown", "order", "threshold"].map((id) => document.getElementById(id));

  // ---- components and interactions, by number

  // `effects` are those by which components are ranked; `beside` is the other of the two `readings`, where there is one.
  const { labels, largest: strongest, beside, readings } = drawing.components;
  const parts = { labels, effects: unpacked(drawing.components.effects), largest: strongest, beside: beside ? unpacked(beside) : null, readings };
  parts.strength = (i) => (parts.largest && known(parts.effects[i]) ? Math.min(1, Math.abs(parts.effects[i]) / parts.largest) : 0);
  parts.other = (i) => (parts.beside && known(parts.beside[i]) ? number(parts.beside[i], parts.largest) : "–");
  parts.effect = (i) => {
    if (!known(parts.effects[i])) return "no single effect";
    const shown = number(parts.effects[i], parts.largest);
    return parts.other(i) === "–" ? shown : `${shown} ${readings[0]}, ${parts.other(i)} ${readings[1]}`;
  };
  parts.tip = (i) => `${parts.labels[i].trim()}: ${parts.effect(i)}`;
  parts.tone = (i) => (!parts.effects[i] ? "none" : parts.effects[i] > 0 ? "pos" : "neg");

  const { count, index, kinds } = drawing.interactions;
  const columns = Object.fromEntries(["orders", "members", "kind", "weak", "value", "lo", "hi", "estimate", "estimate_lo", "estimate_hi", "exact"].map((name) => [name, unpacked(drawing.interactions[name])]));
  const starts = new Uint32Array(count + 1);
  for (let i = 0; i < count; i += 1) starts[i + 1] = starts[i] + columns.orders[i];
  const largest = columns.value.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0) || 1;

  const membersOf = (i) => [...columns.members.subarray(starts[i], starts[i + 1])];
  const kindOf = (i) => kinds[columns.kind[i]];
  const labelOf = (i) => membersOf(i).map((member) => parts.labels[member]).join(" × ");

  function arcOf(i) {
    const tip = `${labelOf(i)}: ${kindOf(i)}, ${index || "value"} ${number(columns.value[i])}`;
    return { number: i, rank: i + 1, components: membersOf(i), kind: kindOf(i), strength: Math.abs(columns.value[i]) / largest, tip };
  }

  // ---- which of them match the controls, and which are drawn

  let matching = [];
  let drawn = [];

  // The slider moves evenly over square roots, because most interactions are weak.
  function least() {
    return threshold ? largest * (Number(threshold.value) / Number(threshold.max)) ** 2 : 0;
  }

  function match() {
    const [wanted, bound] = [order ? Number(order.value) : 0, least()];
    matching = [];
    for (let i = 0; i < count; i += 1) {
      if ((!wanted || columns.orders[i] === wanted) && (!bound || Math.abs(columns.value[i]) >= bound)) matching.push(i);
    }
    if (threshold) document.getElementById("threshold-shown").textContent = number(bound, largest, false);
    if (slider) slider.max = String(Math.max(1, Math.min(matching.length, drawing.drawn)));
    choose();
    list();
  }

  function choose() {
    drawn = matching.slice(0, slider ? Number(slider.value) : drawing.shown).map(arcOf);
    draw();
  }

  function draw() {
    if (!svg) return;
    const artist = drawing.graph ? raysp.graph : raysp.arcs;
    svg.replaceChildren();
    artist.draw(drawn);
    if (raysp.whatIf) raysp.whatIf.mark();
    if (slider) {
      document.getElementById("shown-count").textContent = String(drawn.length);
      document.getElementById("shown-most").textContent = matching.length.toLocaleString("en");
    }
  }

  // ---- highlighting

  // The words or cells of a component, and its node in the graph.
  const elements = new Map();
  if (field) {
    for (const element of field.querySelectorAll(".c[data-i]")) {
      const i = Number(element.dataset.i);
      elements.set(i, [...(elements.get(i) || []), element]);
    }
  }
  const elementsOf = (i) => [...(elements.get(i) || []), ...(drawing.graph && svg ? svg.querySelectorAll(`.node[data-i="${i}"]`) : [])];

  let lit = [];
  let extra = null;

  function focusOn(arcs, member) {
    if (!field || !svg) return;
    for (const element of lit) element.classList.remove("on");
    if (extra) extra.remove();
    extra = null;
    const outside = arcs.length === 1 && !drawn.some((arc) => arc.number === arcs[0].number);
    if (outside) extra = (drawing.graph ? raysp.graph : raysp.arcs).add(arcs[0]);
    const members = new Set(arcs.flatMap((arc) => arc.components).concat(member === undefined ? [] : [member]));
    lit = arcs.flatMap((arc) => [...svg.querySelectorAll(`[data-rank="${arc.rank}"]`)]);
    for (const one of members) lit.push(...elementsOf(one));
    for (const element of lit) element.classList.add("on");
    field.classList.toggle("focus", arcs.length > 0);
  }

  function pointAt(target) {
    const [arc, part] = [target && target.closest(".arc[data-rank]"), target && target.closest(".c[data-i]")];
    if (arc) focusOn(drawn.filter((each) => String(each.rank) === arc.dataset.rank));
    else if (part) {
      const touching = drawn.filter((each) => each.components.includes(Number(part.dataset.i)));
      focusOn(touching, touching.length ? Number(part.dataset.i) : undefined);
    } else focusOn([]);
  }

  function listen() {
    if (field) {
      for (const event of ["mouseover", "focusin"]) field.addEventListener(event, ({ target }) => pointAt(target));
      for (const event of ["mouseleave", "focusout"]) field.addEventListener(event, () => pointAt(null));
      new ResizeObserver(framed(draw)).observe(field);
    }
    for (const row of document.querySelectorAll("tr[data-rank]")) {
      for (const event of ["mouseenter", "focus"]) row.addEventListener(event, () => focusOn([arcOf(Number(row.dataset.rank) - 1)]));
      for (const event of ["mouseleave", "blur"]) row.addEventListener(event, () => focusOn([]));
    }
    if (slider) slider.addEventListener("input", choose);
    for (const control of [order, threshold]) if (control) control.addEventListener("input", match);
  }

  // ---- the table of all of them

  let table = null;
  const place = document.getElementById("all-interactions");
  const filter = document.getElementById("filter");

  function build() {
    const shown = (value) => number(value, columns.value[0]);
    const titles = [["#", "nr"], ["set", ""], ["kind", "wide"], [index || "value", "num"], ["95% interval", "num wide"], ["predicted", "num wide"], ["exact", "num"]];
    const row = (i, element) => {
      element.classList.toggle("weak", columns.weak[i] === 1);
      const set = make("span", `clip kind ${kindOf(i)}`, labelOf(i));
      const interval = known(columns.lo[i]) && known(columns.hi[i]) ? `${shown(columns.lo[i])} to ${shown(columns.hi[i])}` : "–";
      const predicted = make("span", "", shown(columns.estimate[i]));
      if (columns.estimate_hi[i] > columns.estimate_lo[i]) predicted.append(make("small", "", ` ${shown(columns.estimate_lo[i])} to ${shown(columns.estimate_hi[i])}`));
      const exact = make("span", "", known(columns.exact[i]) ? shown(columns.exact[i]) : "–");
      if (known(columns.exact[i])) exact.append(make("span", "tick", " ✓"));
      return [(i + 1).toLocaleString("en"), set, kindOf(i), shown(columns.value[i]), interval, predicted, exact];
    };
    const tip = (i) => arcOf(i).tip + (columns.weak[i] ? "; not significant after controlling false discoveries" : "");
    table = raysp.virtualTable(place, {
      label: "All interactions", className: "sets", columns: titles.map(([title, className]) => ({ title, className })), row, tip,
      onPoint: (i) => focusOn(i === null ? [] : [arcOf(i)]),
    });
    if (filter) filter.addEventListener("input", list);
  }

  // Those in which each word of the filter is part of the label of a member.
  function found() {
    const words = filter ? filter.value.toLowerCase().split(/[\s×]+/).filter(Boolean) : [];
    if (!words.length) return matching;
    const labels = parts.labels.map((label) => label.toLowerCase());
    const having = words.map((word) => labels.map((label) => label.includes(word)));
    return matching.filter((i) => having.every((has) => columns.members.subarray(starts[i], starts[i + 1]).some((member) => has[member])));
  }

  function list() {
    if (!table) return;
    const rows = found();
    table.show(rows);
    document.getElementById("rows-shown").textContent = `${rows.length.toLocaleString("en")} of ${count.toLocaleString("en")} interactions`;
  }

  Object.assign(raysp, { elementsOf, field, focusOn, parts, svg });
  raysp.interactions = {
    drawn: () => drawn,
    draw,
    begin() {
      if (place) build();
      listen();
      match();
    },
  };
}(window.raysp));
