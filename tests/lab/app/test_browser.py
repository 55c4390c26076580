"""The app as a person uses it, in a real browser: first steps, two sessions, cancelling, links."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

_NEEDED = ("playwright", "gradio", "axe_playwright_python")
if not all(importlib.util.find_spec(name) for name in _NEEDED):
    pytest.skip("playwright, gradio and axe-core are needed", allow_module_level=True)
pytestmark = pytest.mark.browser

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
STILL = """document.addEventListener("DOMContentLoaded", () => {
  document.head.appendChild(document.createElement("style")).textContent =
    "*, ::before, ::after { animation: none !important; transition: none !important }" })"""
"""Spinners are drawn anew sixty times a second, in software."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=list(QUIET))
        yield browser
        browser.close()


class Visit:
    """One session: a page, and what it complained of or asked of the outside."""

    def __init__(self, browser: Any, url: str, **about: Any) -> None:
        self.page = browser.new_context(viewport={"width": 1440, "height": 900}, **about).new_page()
        self.page.set_default_timeout(120_000)  # of a busy machine
        self.page.add_init_script(STILL)
        self.faults: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda m: m.type == "error" and self.faults.append(m.text))
        self.page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        self.page.on("request", lambda r: self._asked(r.url))
        self.page.goto(url)

    def _asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.outside.append(url)

    def numbers(self, other_than: str = "") -> str:
        self.page.wait_for_function(
            "old => { const t = document.querySelector('#numbers table'); return t && t.innerText !== old }",
            arg=other_than,
        )
        return self.page.inner_text("#numbers table")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).first.click()

    def until(self, place: str, words: str) -> None:
        self.page.wait_for_function(
            "([place, words]) => (document.querySelector(place)?.innerText || '').includes(words)",
            arg=[place, words],
        )

    def copied(self, page: str) -> tuple[str, str]:
        self.page.locator(f"#{page}-copy > button").click()
        command = self.page.locator(f"#{page}-command .cm-content")
        command.wait_for()
        return self.page.input_value(f"#{page}-link input, #{page}-link textarea"), command.inner_text()

    def accessible(self) -> None:
        """No serious fault that axe-core knows of."""
        from axe_playwright_python.sync_playwright import Axe

        time.sleep(0.4)  # what has just come is named, and faded in
        found = Axe().run(self.page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, [(v["id"], [n["html"][:160] for n in v["nodes"]]) for v in serious]

    def told(self, words: str) -> None:
        self.page.wait_for_function(
            "words => [...document.querySelectorAll('.toast-body')].some(t => t.innerText.includes(words))",
            arg=words,
        )

    def choose(self, place: str, name: str) -> None:
        self.page.locator(f"{place} input").click()
        self.page.get_by_role("option", name=name, exact=True).click()

    def end(self) -> None:
        assert self.faults == [] and self.outside == []
        self.page.context.close()


def _decibels(numbers: str) -> float:
    found = re.search(r"(-?[\d.]+) dB", numbers)
    assert found
    return float(found[1])


def test_inspect_first_picture_bits_command_and_link(
    address: str,
    brief: dict[str, str],
    chromium: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lab.cli.main import run

    visit = Visit(chromium, address)
    eight = visit.numbers()  # without a click
    visit.page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length >= 2")
    assert "simulated" in eight
    visit.until("#layers", "transformer_blocks")
    slider = visit.page.locator("#bits input[type=range]")
    for _ in range(4):
        slider.press("ArrowLeft")
    visit.until("#numbers table", "int4")
    four = visit.numbers()
    assert _decibels(four) < _decibels(eight) - 10
    link, command = visit.copied("inspect")
    words = shlex.split(command)
    assert words[0] == "brainlab"
    monkeypatch.setenv("BRAINLAB_CACHE", brief["BRAINLAB_CACHE"])
    assert run([*words[1:], "--json"]) == 0
    assert f"{json.loads(capsys.readouterr().out)['sqnr_db']:.2f}" == f"{_decibels(four):.2f}"
    visit.page.wait_for_url(f"{address}/{link}")  # the address follows what is seen
    visit.page.reload()
    visit.until("#numbers table", "int4")
    assert visit.numbers() == four
    visit.page.locator("#layers [data-testid=cell-0-0]").press("ArrowDown")  # a row is chosen by keys, too
    below = visit.page.locator("#layers [data-testid=cell-1-0]")
    below.press("Enter")
    visit.page.wait_for_function(
        "name => document.querySelector('#layer').querySelector('input, textarea').value === name",
        arg=below.inner_text().strip(),
    )
    visit.accessible()
    visit.end()


def test_plan_is_edited_applied_and_undone(address: str, chromium: Any) -> None:
    visit = Visit(chromium, address + "/?v=7&tab=inspect")
    visit.until("#fault", "version '7'")
    visit.tab("Plan and apply")
    visit.page.click("#recipe-settings > button")
    name = visit.page.locator("#recipe-form .body-cell[data-col='0']", has_text=re.compile(r"^\s*group\s*$"))
    row = name.first.get_attribute("data-row")
    cell = visit.page.locator(f"#recipe-form .body-cell[data-row='{row}'][data-col='1']")
    cell.dblclick()
    visit.page.keyboard.press("Control+A")
    visit.page.keyboard.type("32")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_function("document.querySelector('#recipe input').value === 'svdquant-w4a4+group=32'")
    visit.until("#plan-summary", "Plan of svdquant-w4a4")  # the first one comes while one types
    visit.accessible()
    visit.page.locator("#recipe input").fill("rtn-w4a4")
    visit.page.locator("#recipe input").press("Enter")
    visit.page.click("#plan")
    visit.until("#plan-summary", "Plan of rtn-w4a4")
    assert "simulated" in visit.page.inner_text("#plan-summary")
    assert "first layer" in visit.page.inner_text("#plan-table")  # a reason
    visit.page.click("#apply")
    visit.until("#plan-summary", "Ledger of rtn-w4a4")
    visit.page.click("#undo")
    visit.until("#apply-status", "Full precision again")
    visit.end()


def test_hidden_figures_typed_numbers_and_a_file_that_is_no_picture(
    address: str, chromium: Any, tmp_path: Path
) -> None:
    visit = Visit(chromium, address + "/?v=1&tab=kernels")
    visit.page.locator("#my-shape").wait_for()
    visit.page.wait_for_function("document.querySelector('#numbers table')", polling=200)  # came unseen
    visit.tab("Inspect")
    visit.page.wait_for_function(  # as wide as its column
        "[...document.querySelectorAll('.js-plotly-plot')].filter(e => e.offsetParent).every("
        "e => Math.abs(e.clientWidth - e.querySelector('.main-svg').clientWidth) < 3)"
    )
    typed = visit.page.locator("#bits input[type=number]")
    for given, shown in (("5", "int5"), ("99", "int8"), ("1", "int3"), ("6", "int6"), ("", "int3")):
        typed.fill(given)
        visit.until("#numbers table", shown)
    typed.press("Tab")
    visit.page.wait_for_function("document.querySelector('#bits input[type=number]').value === '3'")
    box, right = visit.page.locator("#layer input"), visit.page.input_value("#layer input")
    box.fill(f"{right}x")
    box.press("Enter")
    visit.until("#layer-wrong", right)  # the nearest name
    box.fill(right)
    visit.page.wait_for_function("!document.querySelector('#layer-wrong')?.innerText.includes('nearest')")
    visit.tab("Watermark")
    (tmp_path / "no.png").write_text("text")
    visit.page.locator("#watermark-picture input[type=file]").set_input_files(tmp_path / "no.png")
    visit.until("#watermark-verdict", "no.png is not a picture")
    visit.page.context.close()  # the browser itself complains of the picture


def test_compare_shows_a_slider_of_two_pictures_with_scores(address: str, chromium: Any) -> None:
    link = urlencode({"v": 1, "tab": "compare", "recipes": '["rtn-w8a8"]', "n": 1, "steps": 2})
    visit = Visit(chromium, f"{address}/?{link}")
    visit.until("body", "No pictures yet")
    assert "brainlab variants" in visit.copied("compare")[1]  # before anything was drawn
    visit.page.click("#draw")
    visit.until("#draw-status", "Done.")
    visit.until("#scores", "rtn-w8a8")
    scores = visit.page.inner_text("#scores")
    assert all(words in scores for words in ("ST-LPIPS", "seconds", "simulated", "full precision", "20.62"))
    visit.page.wait_for_function("document.querySelectorAll('#pair img').length >= 2")
    assert not visit.page.get_by_text("No pictures yet").is_visible()
    visit.accessible()
    visit.end()


def test_brain_runs_and_kernels(address: str, chromium: Any) -> None:
    visit = Visit(chromium, address)
    visit.tab("Brain")
    visit.until("#leak-line", "Simulated subject")
    assert visit.page.input_value("#strength input[type=number]") == "0.5"  # the run's own
    link, command = visit.copied("brain")  # before anything was decoded
    assert "brainlab brain decode" in command and "tab=brain" in link
    visit.page.check("#brain-native input")
    visit.page.click("#decode")
    visit.told("native belongs to a recipe")
    recipe = visit.page.locator("#brain-recipe input")
    recipe.fill("rtn-w4a4")
    recipe.press("Enter")
    visit.page.click("#decode")
    visit.told("native arithmetic cannot run here")  # machines with a browser have no GPU
    recipe.fill("none")
    recipe.press("Enter")
    visit.page.uncheck("#brain-native input")
    visit.page.click("#decode")
    visit.until("#decode-status", "Done.")
    visit.page.wait_for_function("document.querySelectorAll('#decoded img').length >= 16")
    visit.until("#leak-line", "Leak check")
    visit.page.click("#brain-slices > button")
    visit.until("#brain-slices", "voxels within")
    visit.choose("#map-kind", "attention of the semantic tokens")
    visit.until("#brain-slices", "Attention, tokens, picture 0 of ")
    visit.accessible()
    visit.tab("Runs")
    row = visit.page.locator("#runs .body-cell[data-col='0']", has_text="reported")
    text = visit.page.frame_locator("iframe.report").get_by_text("a page of more than two megabytes")
    for _ in range(4):  # opening the page lists the runs anew: a click just before that is lost
        row.click()
        with suppress(Exception):
            text.wait_for(timeout=20_000)
            break
    text.wait_for(timeout=1_000)
    visit.accessible()
    visit.tab("Kernels")
    visit.page.click("#measure-shape")
    visit.until("#shape-status", "1024x1024x1024, simulated")
    visit.accessible()
    visit.tab("Watermark")
    visit.accessible()
    visit.end()


def test_two_sessions_and_cancelling_within_a_second(address: str, chromium: Any) -> None:
    first, second = (Visit(chromium, address) for _ in range(2))
    for visit in (first, second):
        visit.tab("Compare")
    first.page.click("#draw")
    first.until("#draw-status", "step")
    second.page.click("#cancel-draw")
    second.until("#draw-status", "Nothing is running")
    assert "Stopp" not in first.page.inner_text("#draw-status")
    began = time.monotonic()
    first.page.click("#cancel-draw")
    first.until("#draw-status", "Stopped")
    assert time.monotonic() - began < 1.5  # the browser's own share included
    # the same by two tabs at once is refused by name; a job whose page is gone goes on, and is found
    for visit in (first, second):
        visit.tab("Plan and apply")
    first.page.click("#apply")  # svdquant-w4a4 calibrates: long enough to be looked at
    first.page.wait_for_function("/ of /.test(document.querySelector('#apply-status')?.innerText || '')")
    second.page.click("#apply")
    second.told("is being made already")
    first.end()
    second.tab("Runs")
    second.until("#runs", "running")
    second.page.locator("#runs .virtual-row", has_text="running").locator(".body-cell").first.click()
    second.page.wait_for_function(
        "document.querySelector('#run input, #run textarea').value.startsWith('dit')"
    )
    second.page.click("#stop-run")
    second.until("#run-status", "Stopping")
    second.page.wait_for_function(
        "() => { document.querySelector('#list-runs').click();"
        " return document.querySelector('#runs').innerText.includes('stopped') }",
        polling=500,
    )
    second.end()
