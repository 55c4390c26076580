"""How the pages look: fonts of the machine, the house's colours, room on narrow screens."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from lab.app.links import TABS

CSS = """
.gradio-container, .gradio-container main {
  max-width: 1500px !important; width: 100% !important; margin: 0 auto;
}
.lead {font-size: 1.02rem; margin-bottom: .25rem;}
.numbers table {width: 100%; border-radius: 4px;}
.numbers :is(th, td) {border: 1px solid var(--border-color-primary) !important; padding: .35rem .6rem;}
.numbers :is(th, td) {word-break: normal !important; overflow-wrap: normal !important;}
.block.empty {border: 1px dashed var(--border-color-primary); padding: 1.2rem 1.5rem;}
.js-plotly-plot svg text {fill: #475569 !important;}
.dark .js-plotly-plot svg text {fill: #e2e8f0 !important;}
.js-plotly-plot .hoverlayer text {fill: #f8fafc !important;}
.js-plotly-plot .modebar-btn.plotlyjsicon {display: none;}
@media (hover: none), (max-width: 600px) {.js-plotly-plot .modebar {display: none !important;}}
:is(input, textarea, button, a, [tabindex]):focus-visible {  /* the keyboard sees where it is */
  outline: 2px solid #2563eb !important; outline-offset: 1px;
}
.dark :is(input, textarea, button, a, [tabindex]):focus-visible {outline-color: #93c5fd !important;}
.dark input[type=checkbox]:not(:checked) {border-color: #94a3b8 !important;}  /* it was the page's own blue */
input[type=radio]:checked:hover {  /* Gradio's own style loses the dot under the pointer */
  background-color: var(--checkbox-background-color-selected) !important;
  background-image: var(--radio-circle) !important;
}
.wrap-inner input, input[role=listbox] {text-overflow: ellipsis;}
.wrap-inner input[role=combobox] {padding-right: 1.6rem !important;}
#layers th, #scores th {letter-spacing: -.02em;}
 .numbers td:last-child {font-variant-numeric: tabular-nums;}
.fault {border-left: 4px solid #D55E00; padding: .4rem .8rem;}
.fault .fault {border: 0; padding: 0;}
#scores .body-cell, #scores th, #bits-table .body-cell, #bits-table th,
#layers .body-cell, #layers th, #plan-table .body-cell, #recipe-form .body-cell {font-size: .78rem;}
#layers th .cell-menu-button, #kernels th .cell-menu-button, #recipe-form th .header-icons {display: none;}
#layers [data-col="0"] .cell-wrap, #layers [data-col="0"] span.text {direction: rtl; text-align: left;}
:is(#decoded, #bits-pictures) .grid-container {
  grid-template-columns: repeat(var(--grid-cols), minmax(0, 1fr)) !important;
}
.live .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)) !important;}
:is(#decoded, #bits-pictures, .live) .grid-wrap {min-height: 0; max-height: none; height: auto;}
#watermark-picture img {width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated;}
[role=tab].selected {color: #1d4ed8 !important;} .dark [role=tab].selected {color: #93c5fd !important;}
[id$=-copy] .cm-content span {color: inherit !important;}  /* the editor's colours are too pale */
[id$=-copy] .cm-scroller {min-height: 2.4rem !important;}  /* measured before it was seen: far too high */
.card :is(th, td) {word-break: normal !important; overflow-wrap: normal !important;}
.card table {display: block; overflow-x: auto;}
.tab-like-container input[type=number] {width: 3.2rem !important; min-width: 0 !important;}
#plan-summary .pending {opacity: .85 !important;}
#bits-pictures .caption-label {font-size: .68rem; max-width: 100%; white-space: normal; line-height: 1.2;}
#pair img, #difference img {image-rendering: pixelated;}
.source {font-size: .85rem;} .source.block {overflow: visible !important;}
.report {width: 100%; height: 900px; border: 1px solid #8884; background: #fff;}
.dark .report {background: #14181c;}
#list-runs, #stop-run {align-self: center; height: 2.8rem;}
@media (min-width: 601px) and (max-width: 1150px) {  /* fewer columns, whole words */
  #layers :is(th:nth-child(5), [data-col="4"]) {display: none !important;}
  #plan-table :is(th:nth-child(3), th:nth-child(5), [data-col="2"], [data-col="4"]) {
    display: none !important;
  }
  :is(#layers, #plan-table) :is(th, .body-cell) {font-size: .7rem;}
  :is(#layers, #plan-table) .cell-wrap {padding-left: .35rem !important; padding-right: .35rem !important;}
  :is(#layers, #plan-table) th {padding: .3rem .2rem !important;}
  #layers :is(th:first-child, .body-cell[data-col="0"]) {
    width: 16vw !important; min-width: 16vw !important; max-width: 16vw !important; flex: 0 0 16vw !important;
  }
  #layers :is(th:not(:first-child), .body-cell:not([data-col="0"])) {
    width: 8.5vw !important; min-width: 8.5vw !important; max-width: 8.5vw !important;
    flex: 0 0 8.5vw !important;
  }
  #plan-table :is(th:first-child, th:last-child, .body-cell[data-col="0"], .body-cell[data-col="5"]) {
    width: 20vw !important; min-width: 20vw !important; max-width: 20vw !important; flex: 0 0 20vw !important;
  }
  #plan-table :is(th:nth-child(2), th:nth-child(4), .body-cell[data-col="1"], .body-cell[data-col="3"]) {
    width: 7vw !important; min-width: 7vw !important; max-width: 7vw !important; flex: 0 0 7vw !important;
  }
}
@media (max-width: 600px) {
  .report {height: 700px;}
  #plan-summary :is(th, td):last-child {overflow-wrap: anywhere !important;}
  .live .grid-container {grid-template-columns: repeat(2, minmax(0, 1fr)) !important;}
  #list-runs, #stop-run {height: auto; min-height: 2.8rem;}
  .overflow-menu > button::before {content: "more pages "; font-size: .8rem;}
  #numbers table {display: flex;} #numbers :is(thead, tbody) {flex: 1 1 50%;}
  #numbers :is(table, thead, tbody, tr) {border: 0 !important;}
  :is(#decoded, #bits-pictures) .caption-label {
    font-size: .55rem; padding: 0 .15rem; max-width: 100%; white-space: normal;
  }
  #bits-pictures .grid-container {
    grid-template-columns: repeat(var(--grid-cols), minmax(5.2rem, 1fr)) !important; overflow-x: auto;
  }
  :is(#trials, #bits-table) :is(th, td) {word-break: normal !important; overflow-wrap: normal !important;}
  #runs .body-cell, #runs th {font-size: .62rem;}
  :is(.short, .ends, #recipe-form) .cell-wrap {
    padding-left: .25rem !important; padding-right: .25rem !important;
  }
  #numbers tr {display: flex; flex-direction: column;}
  #numbers :is(th, td) {height: 3.2rem; display: flex; align-items: center;}
  :is(#scores, #trials, #bits-table)::after {
    content: "more columns: move the table sideways"; font-size: .75rem;
  }
  :is(#scores, #trials, #bits-table) :is(th, .body-cell) {
    width: 28vw !important; min-width: 28vw !important; max-width: 28vw !important; flex: 0 0 28vw !important;
  }
  #recipe-form :is(th, .body-cell) {font-size: .62rem; overflow-wrap: anywhere;}
  :is(.short, .ends) th {font-size: .62rem !important; padding: .3rem .2rem !important;}
  .short :is(th, td):nth-child(n+4), .short :is([data-col="3"], [data-col="4"]) {display: none !important;}
  .ends :is(th, td):is(:nth-child(3), :nth-child(4), :nth-child(5)),
  .ends :is([data-col="2"], [data-col="3"], [data-col="4"]) {
    display: none !important;
  }
  :is(.short, .ends) :is(th, td):first-child, :is(.short, .ends) .body-cell[data-col="0"] {
    width: 37vw !important; min-width: 37vw !important; max-width: 37vw !important; flex: 0 0 37vw !important;
  }
  :is(.short, .ends) :is(th, td):not(:first-child), :is(.short, .ends) .body-cell:not([data-col="0"]) {
    width: 22vw !important; min-width: 22vw !important; max-width: 22vw !important; flex: 0 0 22vw !important;
  }
}
footer {display: none !important;}
"""


NAMES = """() => {
  const TABS = __TABS__;
  const name = () => {
    for (const e of document.querySelectorAll("input.search-input:not([aria-label])"))
      e.setAttribute("aria-label", "Filter the table");
    for (const b of document.querySelectorAll("button:not([aria-label]), button[aria-label=' ']"))
      if (!b.innerText.trim() && !b.title)
        b.setAttribute("aria-label",
          b.closest(".block")?.querySelector("[data-testid=block-label]")?.innerText.trim() || "Open");
    for (const d of document.querySelectorAll(".cm-scroller[tabindex='-1']"))  // the keyboard scrolls it, too
      d.setAttribute("tabindex", "0");
    for (const d of document.querySelectorAll("div[aria-label]:not([role])"))
      d.setAttribute("role", "note");
    for (const t of document.querySelectorAll(".toast-header[role=button]")) {  // a button within a button
      t.removeAttribute("role");
      t.removeAttribute("tabindex");
    }
    for (const p of document.querySelectorAll(".js-plotly-plot")) {  // its title says what is found, too
      const lines = [...p.querySelectorAll(".gtitle tspan")].map((line) => line.textContent);
      const title = lines.join(" ") || p.querySelector(".gtitle")?.textContent || "figure";
      if (p.getAttribute("aria-label") !== title) {
        p.setAttribute("role", "figure");  // it holds buttons, which a picture may not
        p.setAttribute("aria-label", title);
      }
    }
    // a picture is its label, or the caption behind it; both change with what is shown
    for (const i of document.querySelectorAll("img:not([alt]), img[alt=''], img[data-named]")) {
      const caption = [...document.querySelectorAll(".source")].find((s) => i.compareDocumentPosition(s) & 4);
      const label = i.closest(".block")?.querySelector("[data-testid=block-label]");
      const of = i.closest("#pair, #difference") && document.querySelector("#drawn-for")?.innerText.trim();
      const live = i.closest(".live");  // no caption is theirs
      const said = live ? `On its way: picture ${[...live.querySelectorAll("img")].indexOf(i) + 1}`
        : label?.innerText.trim() || caption?.innerText.trim() || "";
      const words = (of ? `${of}. ${said}` : said).slice(0, 300);
      if (i.alt !== words) i.alt = words;
      i.dataset.named = "";
    }
  };
  // a figure that came while its page was hidden has the wrong width
  document.addEventListener("click", (event) => {
    if (event.target.closest("[role=tab], .overflow-dropdown button"))
      for (const after of [100, 600]) setTimeout(() => window.dispatchEvent(new Event("resize")), after);
  });
  // the address is a link to what is seen: a page that is loaded again comes back to it
  const links = {}, pageOf = (query) => new URLSearchParams(query).get("tab");
  const shown = () => document.querySelector("[role=tab][aria-selected=true]");
  const word = (tab) => tab.innerText.trim().toLowerCase().replace(/^plan and apply$/, "plan");
  window.brainlabAt = (link) => {
    links[pageOf(link)] = link;
    if (shown() && word(shown()) === pageOf(link)) history.replaceState(history.state, "", link);
  };
  document.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab], .overflow-dropdown button");
    const first = document.querySelector("[role=tablist]");
    if (!tab || !(first?.contains(tab) || tab.closest(".overflow-dropdown"))) return;
    const page = word(tab);
    if (TABS.includes(page)) history.replaceState(history.state, "", links[page] || `?v=1&tab=${page}`);
  });
  document.addEventListener("keyup", (event) => {  // a slider that a key has moved comes to rest, too
    if (event.target.matches?.("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key))
      event.target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
  });
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; name(); }, 200);
  }).observe(document.body, { childList: true, subtree: true });
  name();
}""".replace("__TABS__", json.dumps(TABS))
"""Names for a screen reader where Gradio's own components give none; figures as wide as their page; the
address as a link."""


def theme() -> Any:
    """Return a theme whose fonts are the machine's own, so that the page asks nothing of the outside."""
    sans = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    base = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono)
    return base.set(  # Gradio's own grey is too pale to read
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
    )  # fmt: skip
