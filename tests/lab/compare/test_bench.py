"""What a comparison of a shipped model draws: pictures that its recording has not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lab import zoo
from lab.compare.bench import PanelSettings, open_bench
from lab.compare.networks import Networks
from lab.zoo import recordings


class Recorded:
    """Stands for a recording, which is asked for its length and shape."""

    def __init__(self, n: int) -> None:
        self.n, self.settings = n, {"shape": [8, 16, 16]}

    def __len__(self) -> int:
        return self.n


def test_conditions_are_behind_those_of_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def recording(model: str, **given: object) -> Recorded:
        asked.update(given)
        return Recorded(int(str(given["n"])))

    monkeypatch.setattr(recordings, "zoo_recording", recording)
    monkeypatch.setattr(recordings, "stimulus_tokens", lambda rows, device: rows.float())
    monkeypatch.setattr(Networks, "load", classmethod(lambda kind, device: kind()))
    monkeypatch.setattr(zoo, "load", lambda name, device: nn.Identity())
    monkeypatch.setattr(recordings, "decoder", lambda name, device: None)
    bench = open_bench("dit-64", PanelSettings(n=4, steps=3, guidance=1.5, calibrate=6))
    assert (asked["n"], asked["steps"], asked["guidance"]) == (6, 3, 1.5)
    rows = recordings.order()[6:10]
    assert bench.sources is not None and bench.conditions is not None and bench.null is not None
    assert torch.equal(bench.sources, recordings.stimulus_pictures(rows))
    assert torch.equal(bench.conditions, rows.float())
    assert torch.equal(bench.null, zoo.null_tokens("dit-64")) and bench.shape == (8, 16, 16)
