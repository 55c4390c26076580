"""The app's process gives memory back once nobody looks and nothing is at work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")
from lab.app import server


def test_memory_is_given_back_after_a_run_that_outlives_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, again = [False, True], list[int]()
    monkeypatch.setattr(server, "WORKER", SimpleNamespace(rest=lambda: answers.pop(0)))
    monkeypatch.setattr(server, "_free_later", lambda: again.append(len(answers)))
    monkeypatch.setattr(server, "_OPEN", set())
    server._free()
    assert again == [1]  # at work: asked once more later
    server._free()
    assert again == [1] and not answers
    monkeypatch.setattr(server, "_OPEN", {"somebody"})
    server._free()  # somebody looks: nothing is asked
