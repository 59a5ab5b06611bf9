"""Pages of runs: each one self-contained HTML file, or served beside its styles and scripts. This room reads the store and knows nothing of models or Ray.

Begin reading in `page.py`: `run_page` collects what a page shows, `render_run` renders it. `readings.py` says what single effects are shown and how they are ranked,
on pages, in notebooks and in the terminal. A served page extends `run.html.j2` by the blocks `head`, `navigation`,
`actions` (after the verdict), `sections` (before the appendix) and `scripts`, and is rendered with `assets`, the address where it serves `render.STYLES` and
`render.SCRIPTS` (`render.asset` is the text of one). `whatif.js` describes the events by which other scripts follow and set what is removed; `figures.py` the
charts that `raysp.drawChart(place, chart)` of `charts.js` draws on any page that has `base.js`, `charts.js` and the variables of `page.css`.
"""
