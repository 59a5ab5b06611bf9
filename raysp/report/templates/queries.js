// Shows one query at a time. In print all are shown, without the scatter plot of a single query.
const chosenQuery = document.getElementById("chosen-query");

function showQuery() {
  for (const element of document.querySelectorAll(".query")) element.hidden = element.dataset.query !== chosenQuery.value;
  const place = document.getElementById("query-heldout");
  if (!place) return;
  const name = `query-${chosenQuery.value}`;
  place.closest("figure").hidden = !(name in data.charts);
  if (!(name in data.charts)) return;
  place.dataset.chart = name;
  drawCharts();
}

function listenToQueries() {
  if (chosenQuery) chosenQuery.addEventListener("change", showQuery);
}
