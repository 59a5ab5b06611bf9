"use strict";
// A table of any length of which only the rows in sight are in the document. Rows have one height and are reached by arrow keys.
(function (raysp) {
  const { framed, make } = raysp;
  const SPARE = 6; // rows kept above and below those in sight

  function cellsOf(row, columns, role, words) {
    columns.forEach((column, i) => {
      const cell = make("span", column.className || "");
      cell.setAttribute("role", role);
      const content = words[i];
      if (content instanceof Node) cell.append(content);
      else cell.textContent = content;
      row.append(cell);
    });
    return row;
  }

  // `columns` are titles and classes; `row(i)` returns the words or elements of the cells of the row with number i, `tip(i)` its tooltip. `onPoint(i)` is called
  // when a row is pointed at or focused and with null when it no longer is; `onChoose(i)`, if given, when it is clicked or by Enter and Space.
  // The numbers of the rows to show are given to `show`; `refresh` renews the rows in sight.
  raysp.virtualTable = function virtualTable(place, { label, columns, row, tip, className, onPoint, onChoose }) {
    const grid = make("div", "vgrid");
    const head = make("div", `vrow vhead ${className}`);
    const scroller = make("div", "vscroll");
    const body = make("div", "vbody");
    const shown = new Map();
    let [numbers, active, height] = [[], 0, 0];

    function made(at) {
      const number = numbers[at];
      const element = make("div", `vrow ${className}`);
      element.setAttribute("role", "row");
      element.setAttribute("aria-rowindex", String(at + 2));
      Object.assign(element.dataset, { at, number });
      if (tip) element.dataset.tip = tip(number);
      element.tabIndex = at === active ? 0 : -1;
      cellsOf(element, columns, "gridcell", row(number, element));
      element.style.setProperty("top", `${at * height}px`);
      return element;
    }

    // What of the scroller is below the heading, which stays in sight.
    const room = () => scroller.clientHeight - head.offsetHeight;

    function renew() {
      if (!height || !scroller.clientHeight) return;
      const first = Math.max(0, Math.floor(scroller.scrollTop / height) - SPARE);
      const last = Math.min(numbers.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + SPARE);
      const focused = document.activeElement && body.contains(document.activeElement) ? Number(document.activeElement.dataset.at) : -1;
      for (const [at, element] of shown) {
        if ((at < first || at >= last) && at !== focused) { element.remove(); shown.delete(at); }
      }
      for (let at = first; at < last; at += 1) {
        if (shown.has(at)) continue;
        const element = made(at);
        // The document has the rows in their order, as screen readers read it.
        const next = [...shown.keys()].filter((other) => other > at).sort((a, b) => a - b)[0];
        body.insertBefore(element, next === undefined ? null : shown.get(next));
        shown.set(at, element);
      }
    }

    function empty() {
      body.replaceChildren();
      shown.clear();
    }

    function measure() {
      const probe = make("div", `vrow ${className}`);
      probe.append(make("span", "", "0"));
      body.append(probe);
      const measured = probe.getBoundingClientRect().height;
      probe.remove();
      if (!measured || measured === height) { renew(); return; }
      height = measured;
      body.style.setProperty("height", `${numbers.length * height}px`);
      empty();
      renew();
    }

    function activate(at, focus) {
      const [before, next] = [active, Math.max(0, Math.min(numbers.length - 1, at))];
      active = next;
      if (shown.has(before)) shown.get(before).tabIndex = -1;
      if (focus) {
        if (next * height < scroller.scrollTop) scroller.scrollTop = next * height;
        else if ((next + 1) * height > scroller.scrollTop + room()) scroller.scrollTop = (next + 1) * height - room();
        renew();
      }
      const element = shown.get(next);
      if (!element) return;
      element.tabIndex = 0;
      if (focus) element.focus({ preventScroll: true });
    }

    const rowOf = (event) => event.target.closest(".vrow[data-at]");
    const onKey = (event) => {
      const at = rowOf(event) && Number(rowOf(event).dataset.at);
      if (at === null || at === undefined) return;
      const page = Math.max(1, Math.floor(room() / height) - 1);
      const next = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: numbers.length - 1 }[event.key];
      if (next !== undefined) activate(next, true);
      else if (onChoose && (event.key === "Enter" || event.key === " ")) onChoose(numbers[at]);
      else return;
      event.preventDefault();
    };

    grid.setAttribute("role", "grid");
    grid.setAttribute("aria-label", label);
    scroller.setAttribute("role", "presentation");
    body.setAttribute("role", "rowgroup");
    head.setAttribute("role", "row");
    head.setAttribute("aria-rowindex", "1");
    cellsOf(head, columns, "columnheader", columns.map((column) => column.title));
    scroller.append(head, body);
    grid.append(scroller);
    place.replaceChildren(grid);
    scroller.addEventListener("scroll", framed(renew));
    body.addEventListener("keydown", onKey);
    body.addEventListener("focusin", (event) => { const found = rowOf(event); if (found) { activate(Number(found.dataset.at), false); onPoint(Number(found.dataset.number)); } });
    body.addEventListener("focusout", () => onPoint(null));
    body.addEventListener("mouseover", (event) => { const found = rowOf(event); if (found) onPoint(Number(found.dataset.number)); });
    body.addEventListener("mouseleave", () => onPoint(null));
    if (onChoose) body.addEventListener("click", (event) => { const found = rowOf(event); if (found) onChoose(Number(found.dataset.number)); });
    new ResizeObserver(framed(measure)).observe(scroller);

    return {
      show(found) {
        numbers = found;
        active = 0;
        grid.setAttribute("aria-rowcount", String(found.length + 1));
        body.style.setProperty("height", `${numbers.length * height}px`);
        scroller.scrollTop = 0;
        empty();
        measure();
      },
      refresh() {
        for (const [at, element] of shown) {
          element.replaceChildren();
          cellsOf(element, columns, "gridcell", row(numbers[at], element));
        }
      },
    };
  };
}(window.raysp));
