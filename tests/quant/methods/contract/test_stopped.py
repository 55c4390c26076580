"""Methods that finish layer by layer, or block by block, lose none of it by a stop."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import quant
from quant.registry import get_method

# the model, settings at which a toy is quick, the function that works out one unit
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "svdquant": ("pixart", {"iterations": 2, "samples": 3, "steps": 2, "rows": 64, "smooth_points": 2},
                 "solve_stack"),
    "eda_dm": ("level", {"iterations": 3, "points": 6, "batch_size": 2}, "reconstruct"),
    "lowbit_fp": ("level", {"weight_bits": 4, "rounding": "learned", "iterations": 3, "samples": 2,
                           "rows": 32}, "_layer"),
    "dgq": ("level", {"samples": 2, "groups": 3}, "table"),
    "lrq_dit": ("pixart", {"rotation": "outlier", "samples": 2, "greedy_steps": 4}, "_layer"),
}  # fmt: skip
SOME = {"level": ["mid_block.*", "up_blocks.0.resnets.0.*"], "pixart": ["transformer_blocks.*"]}


@pytest.mark.parametrize("name", CASES)
def test_stopped_and_resumed_gives_the_same_bytes(
    name: str, tiny, recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, settings, work = CASES[name]
    config = get_method(name).config(**settings)
    core, units = importlib.import_module(f"quant.methods.{name}.core"), []
    plain = getattr(core, work)
    monkeypatch.setattr(core, work, lambda *a: units.append(a) or plain(*a))

    def run(config: Any = config, stop: bool = False, seed: int = 3, state: Path | None = None) -> Any:
        def progress(done: int, total: int, what: str) -> None:
            if stop and done > total // 2 and what != "calibrating":
                raise KeyboardInterrupt

        units.clear()
        model = tiny.build(toy)
        ledger = quant.quantize_(
            model, config, trajectories=recorded(toy), include=SOME[toy], seed=seed, progress=progress,
            state=state,
        )  # fmt: skip
        codes = quant.export(model, tmp_path / "m.safetensors").read_bytes()
        return codes, {**ledger.to_dict(), "seconds_taken": None}, len(units)

    codes, ledger, count = run()
    with pytest.raises(KeyboardInterrupt):
        run(stop=True, state=tmp_path / "state")
    before = len(units)
    again, other_ledger, after = run(state=tmp_path / "state")
    assert 0 < before < count and after == count - before
    assert again == codes and other_ledger == ledger
    with pytest.raises(quant.InputError, match="holds training with seed = 3, asked for 4"):
        run(seed=4, state=tmp_path / "state")
    with pytest.raises(quant.InputError, match=r"holds training with config\.samples = |config\.points = "):
        changed = "points" if name == "eda_dm" else "samples"
        run(config.model_copy(update={changed: 5}), state=tmp_path / "state")
    assert run(state=tmp_path / "state")[::2] == (codes, 0)
