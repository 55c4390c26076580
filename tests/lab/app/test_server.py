"""The app as a whole: what stands in a page is of what is chosen; memory is given back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., Any]]:
    """Return the app's functions by their names."""
    home = tmp_path_factory.mktemp("runs")
    (home / "a").mkdir()
    (home / "a/config.yaml").write_text("seed: 1\n")
    return {each.fn.__name__: each.fn for each in server.build(home).fns.values() if each.fn}


def test_no_plan_of_other_settings_stands_beside_a_refusal(functions: dict[str, Callable[..., Any]]) -> None:
    given = ["dit-64", "rtn-w4a4", "", "", "no such"]
    of, words, rows, *texts = functions["plan_or_why"](*given, False)
    assert words.startswith("**Not done:**") and "WILDCARD:field=value" in words
    assert (of, rows, set(texts)) == (given, [], {""})
    again = functions["plan_again"]
    assert all("__type__" in left for left in again(given, *given, False))  # nothing changed: nothing is done
    assert again(given, *given[:4], "nor this", False)[1] != words


def test_a_link_opens_a_run_or_says_why_not(functions: dict[str, Callable[..., Any]]) -> None:
    frame, settings, _, button = functions["linked"]("a")
    assert "no report yet" in frame and settings == "seed: 1\n" and not button.interactive
    assert "not a run below" in functions["linked"]("../b")[0]
    assert functions["link_of"]("a") == "?v=1&tab=runs&run=a" and len(functions["linked"]("")) == 4


def test_whoever_comes_to_brain_without_a_run_is_told_what_to_do(
    functions: dict[str, Callable[..., Any]],
) -> None:
    runs, words, *rest = functions["look_again"]("")
    assert runs.choices == [] and "First a trained run" in words.value and all("__type__" in r for r in rest)
