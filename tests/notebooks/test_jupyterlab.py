"""One notebook in a real JupyterLab, in a real browser: its widgets are there, and answer a click."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

_NEEDED = ("playwright", "nbformat", "jupyterlab", "anywidget")
if not all(importlib.util.find_spec(name) for name in _NEEDED):
    pytest.skip(f"{', '.join(_NEEDED)} are needed", allow_module_level=True)
pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOME = Path(__file__).resolve().parents[2]
CELL = """
import numpy as np
from lab.widgets import views

heat = views.HeatMap()
values = np.ones((3, 12)); values[2, 9] = 40.0
heat.show(values, [900.0, 500.0, 100.0], "Input of a layer")
brain = views.BrainSlices()
volume = np.zeros((6, 5, 4)); volume[1:4, 1:3, 2] = 1.0
brain.show(volume, "noise ceiling")
import ipywidgets as w
from lab.widgets.forms import JobForm
form = JobForm("bench shape", {}, ("rows", "inner", "outer"))
w.VBox([heat, brain, form])
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Start JupyterLab on loopback over a folder with one notebook."""
    import nbformat

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "look.ipynb")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        sys.executable, "-P", "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}", "--ServerApp.log_level=ERROR",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
    ]  # fmt: skip
    paths = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "s"}
    room = {name: str(tmp_path / folder) for name, folder in paths.items()}
    around = {**os.environ, **room, "PYTHONPATH": str(HOME), "JUPYTER_PLATFORM_DIRS": "1"}
    server = subprocess.Popen(command, env=around, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def _wait(address: str) -> None:
    import time

    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            urlopen(f"{address}/api/status", timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.3)
    pytest.fail("JupyterLab did not start")


def test_widgets_are_shown_clicked_and_answer(address: str) -> None:
    from playwright.sync_api import sync_playwright

    _wait(address)
    outside: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium",
                                       args=["--no-sandbox", "--disable-gpu"])  # fmt: skip
        page = browser.new_context(viewport={"width": 1200, "height": 1400}).new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda r: None if _inside(r.url) else outside.append(r.url))
        page.goto(f"{address}/lab/tree/look.ipynb?reset")
        page.locator(".jp-Notebook .cm-content").first.click()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for(state="attached")
        page.keyboard.press("Control+Enter")
        canvas = page.locator("canvas[role=img]").first
        canvas.wait_for()
        box = canvas.bounding_box()
        assert box is not None
        canvas.click(position={"x": box["width"] * 9.5 / 12, "y": box["height"] * 2.5 / 3})
        # the click goes to Python, and its answer comes back
        page.get_by_text("timestep 100: largest magnitude 40").wait_for()
        slider = page.locator("input[type=range]").nth(1)
        slider.fill("200")
        form = page.locator(".jupyter-widgets.jupyter-button", has_text="Run").first
        form.click()
        page.get_by_text("Done.").wait_for()
        page.get_by_text("W4A4, simulated").wait_for()
        browser.close()
    assert outside == []


def _inside(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:", "ws://127.0.0.1:"))
