"use strict";
// What if some components were removed: the prediction of the run's surrogate, evaluated here.
//
// For a page that can do more: `CustomEvent("whatif", { detail: { removed, value, lo, hi } })` is dispatched on the document whenever the removed set changes (lo
// and hi are null without an interval), `CustomEvent("whatif-set", { detail: { removed } })` sets it, and the empty `#whatif-exact` is that page's to fill.
(function (raysp) {
  const { known, make, number, scale, unpacked } = raysp;
  const held = raysp.data.whatIf;
  const section = document.getElementById("whatif");
  if (!held || !held.coefficients || !section) return;
  const { field, parts } = raysp;
  const n = parts.labels.length;
  const coefficients = unpacked(held.coefficients);
  const members = unpacked(held.components);
  const spread = Math.sqrt(held.basis * (1 - held.basis));
  const gone = Float64Array.from([(held.basis - 1) / spread, held.basis / spread]); // of a component that is kept, and of one that is removed
  const at = (id) => document.getElementById(`whatif-${id}`);
  let removed = new Set();
  let choosing = false;

  // ---- the surrogate

  // The sum over terms of coefficient times the product over their components; terms are in ascending order, so that those of one order have one length.
  function termsWithout(set) {
    const factors = new Float64Array(n).fill(gone[0]);
    for (const i of set) factors[i] = gone[1];
    let [sum, term, member] = [0, 0, 0];
    held.orders.forEach((count, order) => {
      for (const end = term + count; term < end; term += 1) {
        let product = coefficients[term];
        for (let k = 0; k < order; k += 1) product *= factors[members[member + k]];
        member += order;
        sum += product;
      }
    });
    return sum;
  }

  // Masks as rows of bits, 1 for a component that is kept, the first in the highest bit. The page holds them so, or as lists of what they remove.
  const width = Math.ceil(n / 8);
  const bitOf = (i) => 0x80 >> (i & 7);
  function without(removals, count) {
    const rows = new Uint8Array(width * count).fill(0xff);
    if (n % 8) for (let row = 1; row <= count; row += 1) rows[row * width - 1] = 0xff00 >> (n % 8);
    for (const [row, i] of removals) rows[row * width + (i >> 3)] &= ~bitOf(i);
    return rows;
  }
  function rowsOf({ count, columns }) {
    if (columns.bits) return unpacked(columns.bits);
    const [sizes, which] = [unpacked(columns.sizes), unpacked(columns.removed)];
    const removals = [];
    sizes.forEach((size, row) => { for (let k = 0; k < size; k += 1) removals.push([row, which[removals.length]]); });
    return without(removals, count);
  }

  // A tail is a sum over measured masks, its centres, of products with one factor a component. `here` are their logarithms for what is removed now: removing a
  // component adds one of two numbers to each of them, by whether the centre keeps it. So what a change costs grows with the components that change.
  const centres = held.centres.map(rowsOf);
  const tails = held.tails.map((tail) => {
    const [weights, kept, mixed, lost] = [tail.weights, tail.kept, tail.mixed, tail.gone].map(unpacked);
    const rows = centres[tail.centres];
    const intact = new Float64Array(weights.length);
    for (let j = 0; j < weights.length; j += 1) {
      for (let i = 0; i < n; i += 1) intact[j] += rows[j * width + (i >> 3)] & bitOf(i) ? kept[i] : mixed[i];
    }
    return { weights, rows, intact, here: intact.slice(), set: new Set(), removes: [mixed.map((value, i) => value - kept[i]), lost.map((value, i) => value - mixed[i])] };
  });

  function move(tail, i, sign) {
    const { rows, here, removes } = tail;
    const [byte, bit, ofKept, ofLost] = [i >> 3, bitOf(i), sign * removes[0][i], sign * removes[1][i]];
    for (let j = 0, at = byte; j < here.length; j += 1, at += width) here[j] += rows[at] & bit ? ofKept : ofLost;
  }

  function tailWithout(tail, set) {
    const [back, more] = [[...tail.set].filter((i) => !set.has(i)), [...set].filter((i) => !tail.set.has(i))];
    if (back.length + more.length < set.size) {
      for (const i of back) move(tail, i, -1);
      for (const i of more) move(tail, i, 1);
    } else { // from the beginning, which is no more work and has no rounding errors of earlier changes
      tail.here.set(tail.intact);
      for (const i of set) move(tail, i, 1);
    }
    tail.set = new Set(set);
    return tail.weights.reduce((sum, weight, j) => sum + weight * Math.exp(tail.here[j]), 0);
  }

  // Points are masks whose measured values are written in: the rest of the surrogate and a residual.
  const keyOf = (row) => String.fromCharCode(...row);
  const points = new Map();
  const written = unpacked(held.points.residuals);
  const pointRows = rowsOf(held.points);
  written.forEach((residual, row) => points.set(keyOf(pointRows.subarray(row * width, (row + 1) * width)), residual));

  const residualOf = (set) => (points.size ? points.get(keyOf(without([...set].map((i) => [0, i]), 1))) : undefined);

  // The last entry at or below this number of components removed.
  function boundOf(count) {
    const [, half, coverage, compared, caution] = held.bounds.findLast(([from]) => from <= count);
    return { half, coverage, compared, caution: caution === null ? "" : held.cautions[caution] };
  }

  // A value that is written in was measured: nothing about it is uncertain.
  const measured = { half: 0, coverage: 1, compared: 0, caution: "" };

  function predict(set) {
    const residual = residualOf(set);
    const value = tails.reduce((sum, tail) => sum + tailWithout(tail, set), termsWithout(set)) + (residual || 0);
    const bound = residual === undefined ? boundOf(set.size) : measured;
    return { ...bound, value, lo: bound.half === null ? null : value - bound.half, hi: bound.half === null ? null : value + bound.half };
  }

  // ---- what the page shows of it

  function show() {
    const told = predict(removed);
    const { whole } = scale([told.value, told.lo, told.hi, held.intact]);
    at("value").textContent = whole(told.value);
    const interval = () => `${whole(told.lo)} to ${whole(told.hi)} (${Math.round(100 * told.coverage)}% interval)`;
    at("interval").textContent = told.lo === null ? "no interval" : told.compared ? interval() : "measured";
    // With nothing removed the value was measured, and a difference would be the surrogate's error.
    at("change").textContent = known(held.intact) && removed.size ? whole(told.value - held.intact) : "–";
    at("caution").textContent = told.caution;
    at("caution").hidden = !told.caution;
    at("count").textContent = removed.size ? `${removed.size.toLocaleString("en")} of ${n.toLocaleString("en")} removed:` : "Nothing is removed.";
    at("restore").disabled = !removed.size;
    section.classList.toggle("changed", removed.size > 0);
    list();
    mark();
    if (table) table.refresh();
    document.dispatchEvent(new CustomEvent("whatif", { detail: { removed: [...removed], value: told.value, lo: told.lo, hi: told.hi } }));
  }

  const MOST = 60; // buttons of removed components

  function list() {
    const buttons = [...removed].slice(0, MOST).map((i) => {
      const item = make("li", "");
      const button = make("button", "button small", `${parts.labels[i].trim() || i + 1} `);
      button.type = "button";
      button.dataset.restore = String(i);
      button.setAttribute("aria-label", `restore ${parts.labels[i]}`);
      button.append(make("span", "faint", "×"));
      item.append(button);
      return item;
    });
    if (removed.size > MOST) buttons.push(make("li", "faint", `and ${(removed.size - MOST).toLocaleString("en")} more, in the list below`));
    at("gone").replaceChildren(...buttons);
  }

  // Words, cells and nodes of removed components are crossed out.
  let off = [];
  function mark() {
    for (const element of off) element.classList.remove("off");
    off = [...removed].flatMap((i) => raysp.elementsOf(i));
    for (const element of off) element.classList.add("off");
    if (!choosing) return;
    for (const element of field.querySelectorAll("span.c[role=button]")) element.setAttribute("aria-pressed", String(removed.has(Number(element.dataset.i))));
  }

  function set(next) {
    const wanted = new Set([...next].map(Number).filter((i) => Number.isInteger(i) && i >= 0 && i < n).sort((a, b) => a - b));
    if (wanted.size === removed.size && [...wanted].every((i) => removed.has(i))) return;
    removed = wanted;
    show();
  }

  function toggle(i) {
    const next = new Set(removed);
    if (!next.delete(i)) next.add(i);
    set(next);
  }

  // ---- choosing: in the text or heat map while the mode is on, and in the list of all components

  function switchMode() {
    choosing = !choosing;
    section.classList.toggle("on", choosing);
    field.classList.toggle("choosing", choosing);
    for (const button of document.querySelectorAll("[data-whatif-mode]")) button.setAttribute("aria-pressed", String(choosing));
    for (const element of field.querySelectorAll("span.c[data-i]")) {
      if (choosing) element.setAttribute("role", "button");
      else for (const name of ["role", "aria-pressed"]) element.removeAttribute(name);
    }
    mark();
  }

  function listenToField() {
    for (const button of document.querySelectorAll("[data-whatif-mode]")) {
      button.hidden = false;
      button.addEventListener("click", switchMode);
    }
    const chosen = (event) => choosing && event.target.closest(".c[data-i]");
    field.addEventListener("click", (event) => { const found = chosen(event); if (found) toggle(Number(found.dataset.i)); });
    field.addEventListener("keydown", (event) => {
      const found = (event.key === "Enter" || event.key === " ") && chosen(event);
      if (!found) return;
      event.preventDefault();
      toggle(Number(found.dataset.i));
    });
  }

  let table = null;

  function buildList() {
    const filter = at("filter");
    const effects = parts.beside ? [[parts.readings[1], "num wide"], [parts.readings[0], "num"]] : [["effect", "num"]];
    table = raysp.virtualTable(at("list"), {
      label: "Components: choose one to remove or restore it", className: parts.beside ? "parts two" : "parts",
      columns: [["#", "nr"], ["component", ""], ...effects, ["state", ""]].map(([title, className]) => ({ title, className })),
      row(i, element) {
        element.setAttribute("aria-selected", String(removed.has(i)));
        element.classList.toggle("weak", removed.has(i));
        const shown = known(parts.effects[i]) ? number(parts.effects[i], parts.largest) : "–";
        const told = parts.beside ? [parts.other(i), shown] : [shown];
        return [(i + 1).toLocaleString("en"), make("span", "clip", parts.labels[i]), ...told, removed.has(i) ? "off" : "on"];
      },
      tip: (i) => parts.tip(i),
      onPoint: (i) => { for (const element of i === null ? document.querySelectorAll(".c.pointed") : raysp.elementsOf(i)) element.classList.toggle("pointed", i !== null); },
      onChoose: toggle,
    });
    const found = () => {
      const words = filter.value.toLowerCase();
      table.show(parts.labels.flatMap((label, i) => (label.toLowerCase().includes(words) ? [i] : [])));
    };
    filter.addEventListener("input", found);
    found();
  }

  raysp.whatIf = {
    mark,
    predict: (numbers) => predict(new Set(numbers)),
    begin() {
      section.hidden = false;
      if (field) listenToField();
      buildList();
      at("restore").addEventListener("click", () => set([]));
      at("gone").addEventListener("click", ({ target }) => {
        const button = target.closest("[data-restore]");
        if (!button) return;
        toggle(Number(button.dataset.restore));
        at("restore").focus({ preventScroll: true });
      });
      document.addEventListener("whatif-set", ({ detail }) => set(detail.removed));
      show();
    },
  };
}(window.raysp));
