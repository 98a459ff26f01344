"""Style and script of the page, as text: a page holds both, so that it needs nothing else."""

STYLE = """
:root {
  color-scheme: light; --ink: #1b1f24; --soft: #4d5661; --line: #d5dae0; --ground: #f4f6f8; --accent: #005a8f;
  --good: #0a6640; --bad: #a32015; --warm: #fff6df; --warm-line: #b27a00;
}
* { box-sizing: border-box; }
html { scroll-padding-top: .6rem; }
body { margin: 0; color: var(--ink); background: var(--ground); }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.page { max-width: 1180px; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .4rem .8rem; background: #fff; z-index: 9; }
a { color: var(--accent); } :focus-visible { outline: 3px solid #e69f00; outline-offset: 2px; border-radius: 3px; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .2rem; }
h3 { font-size: 1.08rem; margin: 1.7rem 0 .5rem; }
p { margin: .3rem 0 .7rem; max-width: 78ch; }
.soft { color: var(--soft); font-size: .92rem; } .lead { font-size: 1.05rem; }
section, nav { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
section { padding: 1.2rem 1.2rem 1.4rem; margin-top: 1.2rem; }
nav { padding: .8rem 1.2rem; margin-top: 1rem; }
nav h2 { font-size: 1.05rem; } nav ol { margin: .3rem 0; padding-left: 1.4rem; }
nav li { margin: .3rem 0; } nav .soft { display: block; }
.warn { background: var(--warm); border-left: 4px solid var(--warm-line); padding: .45rem .8rem; max-width: none; }
.wide { overflow-x: auto; margin: .3rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { text-align: left; color: var(--soft); font-size: .92rem; padding-bottom: .35rem; }
caption span { display: block; max-width: min(60rem, calc(100vw - 3rem)); }
th, td { padding: .32rem 1.1rem .32rem .2rem; text-align: left; vertical-align: top; }
th, td { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; white-space: nowrap; }
tbody th.long, td.long { white-space: normal; overflow-wrap: break-word; min-width: 11rem; max-width: 34rem; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; line-height: 1.3; }
td, th.number { text-align: right; padding-left: .7rem; padding-right: .3rem; } td { white-space: nowrap; }
td.long { text-align: left; padding: .32rem 1.1rem .32rem .2rem; }
tbody tr:hover { background: #f6f9fb; }
td small { color: var(--soft); font-size: .86em; }
.verdict { white-space: nowrap; font-weight: 650; } .verdict span { display: inline-block; width: 1.1em; }
.yes { color: var(--good); } .no { color: var(--bad); } .open { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.4rem 1.2rem; }
.figures .broad { grid-column: 1 / -1; } .thirds { grid-template-columns: repeat(3, minmax(0, 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-size: .9rem; color: var(--soft); margin-top: .2rem; }
figcaption b { color: var(--ink); font-weight: 600; }
.plot:empty { min-height: 15rem; }
details { margin-top: .9rem; } figure details { margin-top: .3rem; font-size: .92rem; }
summary { cursor: pointer; font-weight: 600; width: fit-content; }
figure summary { font-weight: 400; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .6rem 0; font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; max-width: 90ch; }
footer { color: var(--soft); font-size: .9rem; margin-top: 1.4rem; }
@media (max-width: 760px) {
  .page { padding: .8rem .5rem 2rem; } section, nav { padding: .9rem .75rem 1.1rem; }
  .figures, .thirds { grid-template-columns: minmax(0, 1fr); }
  dl { grid-template-columns: minmax(0, 1fr); } dt { margin-top: .4rem; }
  tbody th:not(.long) { position: sticky; left: 0; background: #fff; font-size: .86rem; }
  tbody th.long, td.long { min-width: 8.5rem; }
  h1 { font-size: 1.45rem; } h2 { font-size: 1.2rem; }
}
@page { margin: 13mm; }
@media print {
  body { background: #fff; font-size: 10.5pt; } .page { max-width: none; padding: 0; }
  section, nav { border: 0; border-radius: 0; padding: 0; } section { border-top: 1.5pt solid var(--ink); }
  section { padding-top: .7rem; margin-top: 1.4rem; }
  .figures { grid-template-columns: minmax(0, 1fr); } .thirds { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .skip, .hint, figure summary { display: none; }
  .plot, .wide, tr, .warn { break-inside: avoid; } figcaption { break-before: avoid; }
  h2, h3, summary, caption, thead { break-after: avoid; }
  .wide { overflow: visible; } table { font-size: 8.5pt; line-height: 1.3; } caption, figcaption { font-size: 9pt; }
  th, td { padding: .2rem .5rem .2rem .1rem; } td, th.number { padding-left: .2rem; padding-right: .3rem; }
  td { white-space: normal; } td small { white-space: nowrap; } td.long { min-width: 0; }
  a { color: inherit; text-decoration: none; }
}
"""

SCRIPT = """
"use strict";
(() => {
  const PAPER = 680, HALF_PAPER = 330;
  const plots = [...document.querySelectorAll(".plot")], waiting = [...plots];
  const look = JSON.parse(document.getElementById("look").textContent);
  const drag = matchMedia("(pointer: coarse)").matches ? false : "zoom";

  // the widest layout that fits; its keys are paths such as xaxis2.domain
  function fitted(plot, width) {
    const fits = plot.drawing.layouts.filter(each => each.width <= width);
    return { ...(fits.at(-1) ?? plot.drawing.layouts[0]).set, width };
  }
  function put(layout, path, value) {
    const names = path.split("."), last = names.pop();
    let inner = layout;
    for (const name of names) inner = inner[name] ??= {};
    inner[last] = value;
  }
  function paperWidth(plot) { return plot.closest(".thirds") ? HALF_PAPER : PAPER; }
  function draw(plot, width) {
    plot.drawing = JSON.parse(plot.nextElementSibling.textContent);
    const layout = { ...plot.drawing.layout, template: look, dragmode: drag };
    for (const [path, value] of Object.entries(fitted(plot, width))) put(layout, path, value);
    plot.width = plot.wanted = width;
    plot.busy = true;
    plot.done = Plotly.newPlot(plot, plot.drawing.data, layout, { displayModeBar: false });
    plot.done.then(() => { plot.busy = false; fit(plot, plot.wanted); });
  }
  // a plot that is still being drawn is fitted once it is there
  function fit(plot, width) {
    plot.wanted = width;
    if (!width || !plot.drawing || plot.busy || plot.width === width) return;
    plot.width = width;
    Plotly.relayout(plot, fitted(plot, width));
  }
  // one after the other, so that a long page can be scrolled meanwhile
  function next() {
    const plot = waiting.shift();
    if (plot) { draw(plot, plot.clientWidth); setTimeout(next, 0); }
    else Promise.all(plots.map(each => each.done)).then(() => { document.documentElement.dataset.drawn = "all"; });
  }

  let opened = null;
  function onPaper() {
    if (opened) return;
    for (const plot of waiting.splice(0)) draw(plot, paperWidth(plot));
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const fold of opened) fold.open = true;
    for (const plot of plots) fit(plot, paperWidth(plot));
  }
  function onScreen() {
    if (!opened) return;
    for (const fold of opened) fold.open = false;
    opened = null;
    for (const plot of plots) fit(plot, plot.clientWidth);
  }
  addEventListener("beforeprint", onPaper);
  addEventListener("afterprint", onScreen);
  matchMedia("print").addEventListener("change", paper => paper.matches ? onPaper() : onScreen());
  addEventListener("resize", () => {
    if (!opened) for (const plot of plots) fit(plot, plot.clientWidth);
  });
  next();
})();
"""
