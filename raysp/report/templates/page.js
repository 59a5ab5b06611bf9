"use strict";
// Starts the page: charts, interactions, tooltips, movement by arrow keys, print.
(function (raysp) {
  const PRINT_WIDTH = 680;
  const { field } = raysp;

  function drawCharts() {
    for (const place of document.querySelectorAll("[data-chart]")) raysp.drawChart(place, raysp.data.charts[place.dataset.chart]);
  }

  // The words, or the cells of the heat maps, are one stop of the tabulator; arrow keys move between them.
  function rove() {
    const all = [...field.querySelectorAll(".c[data-i]:not(.node)")];
    if (!all.length) return;
    let now = all[0];
    for (const element of all) element.tabIndex = -1;
    now.tabIndex = 0;
    const middle = (element) => { const box = element.getClientRects()[0] || element.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; };
    // The nearest on the next line up or down.
    const beyond = (from, sign) => {
      const [x, y] = middle(from);
      let [best, least] = [null, Infinity];
      for (const element of all) {
        const [a, b] = middle(element);
        const away = (b - y) * sign;
        if (away > 5 && 3 * away + Math.abs(a - x) < least) [best, least] = [element, 3 * away + Math.abs(a - x)];
      }
      return best;
    };
    field.addEventListener("focusin", ({ target }) => {
      if (!all.includes(target)) return;
      now.tabIndex = -1;
      now = target;
      now.tabIndex = 0;
    });
    field.addEventListener("keydown", (event) => {
      const at = all.indexOf(event.target);
      if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const next = { ArrowRight: () => all[at + 1], ArrowLeft: () => all[at - 1], ArrowDown: () => beyond(event.target, 1), ArrowUp: () => beyond(event.target, -1),
        Home: () => all[0], End: () => all[all.length - 1] }[event.key];
      if (!next) return;
      event.preventDefault();
      const found = next();
      if (found) found.focus();
    });
  }

  // Tables that do not fit the window can be scrolled by keyboard.
  function reachTables() {
    const reach = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (target.scrollWidth <= target.clientWidth || target.hasAttribute("tabindex")) continue;
        target.tabIndex = 0;
        target.setAttribute("role", "region");
        target.setAttribute("aria-label", target.closest("section")?.querySelector("h2")?.textContent ?? "Table");
      }
    });
    for (const place of document.querySelectorAll(".scroll")) reach.observe(place);
  }

  function listenToPrint() {
    // Print in light colours at a fixed width.
    let theme;
    addEventListener("beforeprint", () => {
      ({ theme } = document.documentElement.dataset);
      document.documentElement.dataset.theme = "light";
      if (!field) return;
      field.style.setProperty("width", `${Math.min(field.clientWidth, PRINT_WIDTH)}px`);
      raysp.interactions.draw();
    });
    addEventListener("afterprint", () => {
      if (theme === undefined) delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      if (!field) return;
      field.style.removeProperty("width");
      raysp.interactions.draw();
    });
  }

  if (raysp.interactions) raysp.interactions.begin();
  if (raysp.whatIf) raysp.whatIf.begin();
  if (field) rove();
  raysp.listenForTips();
  drawCharts();
  reachTables();
  listenToPrint();
}(window.raysp));
