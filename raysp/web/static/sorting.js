// Headings that sort a table: buttons, of which the one in force is marked.

import { make } from "./raysp.js";

export function heading(by, title, sort, full = null) {
  return make("button", { type: "button", class: "sort", "data-by": by, title: full, click: () => sort(by) }, title);
}

export function markSorted(place, by, down) {
  for (const button of place.querySelectorAll(".sort")) {
    button.closest("[role=columnheader]").setAttribute("aria-sort", button.dataset.by !== String(by) ? "none" : down ? "descending" : "ascending");
  }
}
