// A table of thousands of rows, of which only those that can be seen are in the document. Sorted by its headers.

import { clear, make } from "./raysp.js";

const ROW = 31; // pixels, as in sql.css
const SPARE = 12; // rows above and below those that are seen
const MOST_TITLE = 4000;
const PX = 8.2; // of a character
const [NARROW, WIDE] = [70, 420];

export const isNumber = (value) => typeof value === "number";
export const textOf = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

// What a cell shows: of a number the digits that matter; its title has all of them.
const shownOf = (value) => (isNumber(value) && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : textOf(value));

function compared(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (isNumber(a) && isNumber(b)) return a - b;
  return textOf(a).localeCompare(textOf(b), "en", { numeric: true });
}

export class Grid {
  constructor(place) {
    Object.assign(this, { place, columns: [], rows: [], order: [], sorted: null, first: -1 });
    let waiting = 0;
    const draw = () => { waiting = waiting || requestAnimationFrame(() => { waiting = 0; this.draw(); }); };
    place.addEventListener("scroll", draw, { passive: true });
    new ResizeObserver(draw).observe(place);
  }

  show(columns, rows) {
    Object.assign(this, { columns, rows, order: rows.map((_, i) => i), sorted: null, first: -1 });
    this.place.scrollTop = this.place.scrollLeft = 0;
    if (!columns.length || !rows.length) {
      clear(this.place, make("p", { class: "note empty" }, "No rows."));
      return;
    }
    this.numeric = columns.map((_, c) => rows.some((row) => row[c] !== null) && rows.every((row) => row[c] === null || isNumber(row[c])));
    const headers = columns.map((column, c) => make("th", { scope: "col", class: this.numeric[c] ? "num" : null, "aria-sort": "none" },
      make("button", { type: "button", title: `${column.name} (${column.type}): sort`, click: () => this.sort(c) }, column.name)));
    this.headers = headers;
    this.body = make("tbody");
    const widths = columns.map((column, c) => this.width(column, c));
    const cols = widths.map((width) => {
      const col = make("col");
      col.style.setProperty("width", `${width}px`);
      return col;
    });
    const table = make("table", { "aria-rowcount": rows.length + 1, "aria-colcount": columns.length }, make("colgroup", {}, cols), make("thead", {}, make("tr", { "aria-rowindex": 1 }, headers)), this.body);
    table.style.setProperty("width", `${widths.reduce((sum, width) => sum + width, 0)}px`);
    clear(this.place, table);
    this.draw();
  }

  // As wide as most of its first rows need.
  width(column, c) {
    const longest = this.rows.slice(0, 300).reduce((most, row) => Math.max(most, row[c] === null ? 4 : shownOf(row[c]).length), column.name.length + 2);
    return Math.round(Math.min(WIDE, Math.max(NARROW, longest * PX + 26)));
  }

  sort(c) {
    const ascending = !(this.sorted?.column === c && this.sorted.ascending);
    this.sorted = { column: c, ascending };
    const known = (i) => this.rows[i][c];
    this.order.sort((a, b) => {
      const [one, other] = [known(a), known(b)];
      if (one === null || other === null) return compared(one, other) || a - b; // null last, either way
      return (ascending ? compared(one, other) : compared(other, one)) || a - b;
    });
    this.headers.forEach((header, i) => header.setAttribute("aria-sort", i === c ? (ascending ? "ascending" : "descending") : "none"));
    this.first = -1;
    this.draw();
  }

  draw() {
    if (!this.rows.length) return;
    const first = Math.max(0, Math.floor(this.place.scrollTop / ROW) - SPARE);
    const last = Math.min(this.rows.length, first + Math.ceil((this.place.clientHeight || 500) / ROW) + 2 * SPARE);
    if (first === this.first && last === this.last) return;
    Object.assign(this, { first, last });
    const lines = [];
    for (let at = first; at < last; at += 1) lines.push(this.line(at));
    clear(this.body, this.space(first), lines, this.space(this.rows.length - last));
  }

  line(at) {
    return make("tr", { "aria-rowindex": at + 2 }, this.rows[this.order[at]].map((value, c) => {
      if (value === null) return make("td", { class: this.numeric[c] ? "num null" : "null" }, "null");
      const text = shownOf(value);
      return make("td", { class: this.numeric[c] ? "num" : null, title: text.length > 24 || text !== textOf(value) ? textOf(value).slice(0, MOST_TITLE) : null }, text.length > 300 ? `${text.slice(0, 300)}…` : text);
    }));
  }

  space(count) {
    if (!count) return null;
    const cell = make("td", { colspan: this.columns.length });
    cell.style.setProperty("height", `${count * ROW}px`);
    return make("tr", { class: "space", "aria-hidden": "true" }, cell);
  }
}
