"""The pass that measures ranges and attention: kept as it goes, and gone on with after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import quant
from quant.methods.dgq import DgqConfig, first_pass
from quant.registry import Context
from quant.training.state import State

BLOCK = "mid_block.attentions.0.transformer_blocks.0"
SOME = [f"{BLOCK}.attn2.*", "mid_block.resnets.0.*"]


def test_a_stop_in_the_first_pass_loses_nothing(
    tiny, recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, store = tiny.build("unet"), recorded("unet")
    monkeypatch.setattr(first_pass, "EVERY", 0.0)
    monkeypatch.setattr(first_pass, "BATCH", 1)
    samples = len(store.keys("calibrate"))
    lines = quant.plan(model, DgqConfig(), trajectories=store, include=SOME).quantized
    forwards: list[int] = []
    model.register_forward_hook(lambda *args: forwards.append(1))

    def run(folder: Path | None = None, stop: int = 0) -> tuple[list[torch.Tensor], int]:
        def progress(done: int, total: int, what: str) -> None:
            if done == stop:
                raise KeyboardInterrupt

        forwards.clear()
        context = Context(recording=store, state=State(folder), progress=progress)
        ranges, found = first_pass.first_pass(model, lines, [f"{BLOCK}.attn2"], DgqConfig(), context)
        rows = [
            side for r in ranges.values() for table in r.tables.values() for pair in table for side in pair
        ]
        mass = found[f"{BLOCK}.attn2"]
        assert list(ranges) == [line.name for line in lines] and mass.fixed
        times = [torch.tensor(list(r.tables)) for r in ranges.values()]
        return [*rows, *times, mass.total, mass.tops, torch.tensor(mass.count)], len(forwards)

    whole, count = run()
    assert samples > 2 and count == samples * len(store.timesteps)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", stop=1)
    again, more = run(tmp_path / "state")
    assert more == (samples - 1) * len(store.timesteps)
    assert len(again) == len(whole) and all(map(torch.equal, again, whole))
    assert run(tmp_path / "state")[1] == 0  # what is whole is not measured again
