"use strict";
// Shows one query at a time. In print all are shown, without the scatter plot of a single query.
(function (raysp) {
  const chosen = document.getElementById("chosen-query");
  if (!chosen) return;
  chosen.addEventListener("change", () => {
    for (const element of document.querySelectorAll(".query")) element.hidden = element.dataset.query !== chosen.value;
    const place = document.getElementById("query-heldout");
    if (!place) return;
    const chart = raysp.data.charts[`query-${chosen.value}`];
    place.closest("figure").hidden = !chart;
    if (chart) raysp.drawChart(place, chart);
  });
}(window.raysp));
