// The answer to a query as a table that is sorted by its headings.

import { make } from "./raysp.js";
import { heading, markSorted } from "./sorting.js";

const MOST_TITLE = 4000;
const MOST_SHOWN = 300; // characters of a cell
const PX = 8.2; // of a character
const [NARROW, WIDE, BETWEEN] = [56, 420, 22];
const SAMPLE = 300; // rows that columns are made wide enough for

export const isNumber = (value) => typeof value === "number";
export const textOf = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

// What a cell shows: of a number the digits that matter; its title has all of them.
const shownOf = (value) => (isNumber(value) && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : textOf(value));

function compared(a, b) {
  if (isNumber(a) && isNumber(b)) return a - b;
  return textOf(a).localeCompare(textOf(b), "en", { numeric: true });
}

function cell(value) {
  if (value === null) return make("span", { class: "null" }, "null");
  const [text, whole] = [shownOf(value), textOf(value)];
  return make("span", { title: text.length > 24 || text !== whole ? whole.slice(0, MOST_TITLE) : null }, text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}…` : text);
}

export class Grid {
  constructor(place) {
    Object.assign(this, { place, rows: [], numeric: [] });
  }

  show(columns, rows) {
    this.rows = rows;
    this.numeric = columns.map((_, c) => rows.some((row) => row[c] !== null) && rows.every((row) => row[c] === null || isNumber(row[c])));
    if (!columns.length || !rows.length) {
      this.place.replaceChildren(make("p", { class: "note empty" }, "No rows."));
      return;
    }
    const widths = columns.map((column, c) => this.width(column, c));
    this.place.style.setProperty("--columns", widths.map((width) => `minmax(${width}px, 1fr)`).join(" "));
    this.place.style.setProperty("--wide", `${widths.reduce((sum, width) => sum + width + BETWEEN, 0)}px`);
    this.sorted = null;
    this.table = window.raysp.virtualTable(this.place, {
      label: "Rows of the answer", className: "answered", onPoint() {},
      columns: columns.map((column, c) => ({ title: heading(String(c), column.name, (by) => this.sort(Number(by)), `${column.name} (${column.type}): sort`), className: this.numeric[c] ? "num" : "" })),
      row: (i) => rows[i].map(cell),
    });
    this.table.show(rows.map((_, i) => i));
  }

  // As wide as most of its first rows need.
  width(column, c) {
    const longest = this.rows.slice(0, SAMPLE).reduce((most, row) => Math.max(most, row[c] === null ? 4 : shownOf(row[c]).length), column.name.length + 2);
    return Math.round(Math.min(WIDE, Math.max(NARROW, longest * PX)));
  }

  sort(c) {
    const down = this.sorted?.column === c && !this.sorted.down;
    this.sorted = { column: c, down };
    const order = this.rows.map((_, i) => i).sort((i, j) => {
      const [a, b] = [this.rows[i][c], this.rows[j][c]];
      if (a === null || b === null) return (a === null) - (b === null) || i - j; // null last, either way
      return (down ? compared(b, a) : compared(a, b)) || i - j;
    });
    this.table.show(order);
    markSorted(this.place, c, down);
  }
}
