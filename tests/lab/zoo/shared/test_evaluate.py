"""Measuring the shared network: the card that ships changes when all is measured, and says the command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lab import zoo
from lab.zoo import people
from lab.zoo.people import Seen
from lab.zoo.shared import evaluate
from tests.lab.zoo.conftest import own_zoo  # noqa: F401 - a copy that may be written to


def test_a_stopped_measuring_leaves_the_card(
    own_zoo: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, ...]] = []
    pictures = np.zeros((2, 8, 8, 3), np.float32)

    def scan(network: Any, answers: Any, seen: Seen, ceiling: float, trials: int, seed: int) -> Any:
        asked.append((answers, ceiling, trials, seed))
        return network

    def row(test: Any, pupils: Any) -> Any:
        assert pupils == test.networks  # each is read by itself: its tokens and clusters are its own
        if len(asked) == stop:
            raise KeyboardInterrupt
        return {"network": len(asked)}, {"ridge": pictures, "network": pictures}

    seen = Seen(torch.zeros(402, 1), torch.zeros(402, 0), torch.zeros(402, 1), 400)
    monkeypatch.setattr(evaluate, "HOME", own_zoo)
    monkeypatch.setattr(people, "tested_pictures", lambda *given: (torch.zeros(402, 3, 8, 8), 400))
    monkeypatch.setattr(people, "see", lambda *given, **options: seen)
    for name in ("load", "null_tokens"):
        monkeypatch.setattr(evaluate, name, lambda *given: None)
    monkeypatch.setattr(evaluate, "look", lambda persons, seen, good, progress: [(persons[0].seed, good)])
    monkeypatch.setattr(evaluate.Painter, "of", lambda *given: SimpleNamespace(truth=pictures))
    monkeypatch.setattr(evaluate.Pupil, "scan", scan)
    monkeypatch.setattr(evaluate._Test, "row", row)
    before, stop = zoo.info("shared-64"), 3
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(tmp_path, tmp_path, n=2, seed=4)
    assert zoo.info("shared-64") == before
    assert len(json.loads((tmp_path / "shared-64.json").read_text())["rows"]) == 2
    asked.clear()
    stop = 0
    older = SimpleNamespace(to=lambda device: "older")
    monkeypatch.setattr(evaluate, "load_file", lambda file: (older, {}))
    evaluate.evaluate(tmp_path, tmp_path, n=2, before=tmp_path / "b.safetensors")
    assert zoo.info("shared-64")["newcomers"]["measured_by"].endswith(" --before b.safetensors --n 2")
    assert len(asked) == 16
    asked.clear()
    evaluate.evaluate(tmp_path, tmp_path, n=2, seed=4)
    found = zoo.info("shared-64")["newcomers"]
    assert found["measured_by"] == "brainlab zoo evaluate shared-64 --n 2 --seed 4"
    # 3000 trials are more than were scanned; both kinds of newcomer, at both ceilings
    wanted = [(c, t) for c in (0.1, 0.3) for t in (150, 300)]
    assert asked == [(who, c, t, 11) for who in ((151, False), (152, True)) for c, t in wanted]
    assert [(r["cortex"], r["network"]) for r in found["rows"]][3:5] == [("alexnet", 4), ("efficientnet", 5)]
    assert (
        found["sheet_rows"][0] == "alexnet, ceiling 0.1, 300 trials: ridge" and len(found["sheet_rows"]) == 8
    )
