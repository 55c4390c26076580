"""How the pages look: fonts of the machine, the house's colours, room on narrow screens."""

from __future__ import annotations

from typing import Any

import gradio as gr

CSS = """
.gradio-container, .gradio-container main {
  max-width: 1500px !important; width: 100% !important; margin: 0 auto;
}
.lead {font-size: 1.02rem; margin-bottom: .25rem;}
.numbers table {width: 100%;} .numbers td:last-child {font-variant-numeric: tabular-nums;}
.fault {border-left: 4px solid #D55E00; padding: .4rem .8rem;}
#layers td, #layers th, #plan-table td, #recipe-form td {font-size: .78rem;}
#layers td:first-child .cell-wrap, #layers td:first-child span {direction: rtl; text-align: left;}
.source {font-size: .85rem;}
.report {width: 100%; height: 900px; border: 1px solid #8884; background: #fff;}
@media (max-width: 600px) {
  #layers th:nth-child(n+4), #layers td:nth-child(n+4) {display: none;}
  #plan-table th:nth-child(3), #plan-table td:nth-child(3) {display: none;}
  #plan-table th:nth-child(4), #plan-table td:nth-child(4) {display: none;}
  #kernels th:nth-child(n+4), #kernels td:nth-child(n+4) {display: none;}
  .report {height: 700px;}
}
footer {display: none !important;}
"""


NAMES = """() => {
  const name = () => {
    for (const e of document.querySelectorAll("input.search-input:not([aria-label])"))
      e.setAttribute("aria-label", "Filter the table");
    for (const b of document.querySelectorAll("button:not([aria-label])"))
      if (!b.innerText.trim() && !b.title)
        b.setAttribute("aria-label",
          b.closest(".block")?.querySelector("[data-testid=block-label]")?.innerText || "Open");
    for (const i of document.querySelectorAll("img:not([alt])"))
      i.alt = i.closest(".block")?.querySelector("[data-testid=block-label]")?.innerText || "";
  };
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; name(); }, 200);
  }).observe(document.body, { childList: true, subtree: true });
  name();
}"""
"""Names for a screen reader where Gradio's own components give none."""


def theme() -> Any:
    """Return a theme whose fonts are the machine's own, so that the page asks nothing of the outside."""
    sans = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    base = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono)
    return base.set(  # Gradio's own grey is too pale to read
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
    )  # fmt: skip
