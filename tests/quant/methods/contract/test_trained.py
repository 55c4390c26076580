"""What every method with a distillation loop must do, at toy budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import quant
from quant.registry import get_method
from quant.training.student import Student

TOY: dict[str, dict[str, Any]] = {
    "efficientdm": {"rate_factors": 0.05, "rate_input": 0.01},
    "quest": {"rate_weight": 1e-3, "rate_input": 0.01, "probe_rows": 2, "train_steps": 15},
    "binarydm": {"rate_weight": 2e-3, "rate_scale": 0.01, "outer": 0.2},
    "qvgen": {"rate_weight": 1e-3, "rate_scale": 0.003, "rank": 4},
}
METHODS = [name for name in quant.list_methods() if get_method(name).info.trains]
BASE = {"train_steps": 30, "train_rows": 4, "calibration_rows": 9, "held_out_rows": 3, "look_every": 10}
SOME = ["mid_block.*", "up_blocks.0.resnets.*"]
FEW = ["mid_block.resnets.0.*", "mid_block.attentions.*.attn2.*"]
"""Where SVDQuant goes before: its search takes longer than the training, layer by layer."""


WAY: dict[str, Any] = {"unroll": 2, "held_out_rows": 4}
ALONG: list[tuple[str, dict[str, Any]]] = [
    ("efficientdm", WAY), ("binarydm", {**WAY, "mimicking": 0}),
    ("qvgen", {**WAY, "helper": "kept", "start": "svdquant", "weight_bits": 2, "masters": "weights",
               "policy": "common", "group": 16}),
]  # fmt: skip
"""Losses along the sampler's way."""


class Killed(BaseException):
    pass


def config(name: str, **changes: Any) -> Any:
    return get_method(name).config(**{**BASE, **TOY[name], **changes})


def test_all_of_them_are_here() -> None:
    assert set(TOY) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_loss_falls_and_the_exported_model_is_the_student(name: str, tiny, recorded, monkeypatch) -> None:
    store, model = recorded("level"), tiny.build("level")
    caught: dict[str, Any] = {}
    outcome = Student.outcome

    def watched(self: Student, *args: Any, **kwargs: Any) -> Any:
        batch = store.read([(key, step) for key in (0, 1) for step in range(3)])
        with self.installed(), torch.no_grad():
            caught["student"], caught["teacher"] = self.predict(batch), self.target(batch)
        caught["batch"], caught["source"] = batch, self.source
        return outcome(self, *args, **kwargs)

    monkeypatch.setattr(Student, "outcome", watched)
    ledger = quant.quantize_(model, config(name), trajectories=store, seed=1, include=SOME)
    with torch.no_grad():
        found = caught["source"].predict(model, caught["batch"])
        with quant.enabled(model, False):
            assert torch.equal(caught["source"].predict(model, caught["batch"]), caught["teacher"])
    assert torch.equal(found, caught["student"]) and not torch.equal(found, caught["teacher"])
    for stage, notes in ((k, v) for k, v in ledger.notes.items() if isinstance(v, dict) and "steps" in v):
        assert notes["loss_last"] < notes["loss_first"], stage
        assert notes["held_out"] <= notes["held_out_first"], stage
    planned = quant.plan(tiny.build("level"), config(name), trajectories=store, include=SOME)
    assert planned.training is not None and planned.training.steps == ledger.cost["steps"] > 0
    assert f"trains {planned.training.steps} steps" in str(planned) and planned.seconds > 0
    assert ledger.cost["seconds"] > 0 and ledger.cost["peak_bytes"] > 0


@pytest.mark.parametrize(("name", "changes"), [*((name, {}) for name in METHODS), *ALONG])
def test_killed_and_resumed_gives_the_same_bytes(
    name: str, changes: dict[str, Any], tiny, recorded, tmp_path: Path
) -> None:
    short = config(name, **{**changes, "train_steps": 5, "look_every": 2, "train_rows": 2})
    include = FEW if "start" in changes else SOME

    def run(file: str, stop: int | None = None, **options: Any) -> bytes:
        def progress(done: int, total: int, what: str) -> None:
            if stop is not None and "training" in what and done == stop:
                raise Killed

        model = tiny.build("level")
        quant.quantize_(
            model, short, trajectories=recorded("level"), include=include, progress=progress, **options
        )
        return quant.export(model, tmp_path / file).read_bytes()

    whole = run("whole.safetensors")
    with pytest.raises(Killed):
        run("killed.safetensors", stop=3, state=tmp_path / "state")
    assert run("resumed.safetensors", state=tmp_path / "state") == whole
    other, store = short.model_copy(update={"train_steps": 6}), recorded("level")
    with pytest.raises(quant.InputError, match=r"config\.train_steps = 5, asked for 6"):
        quant.quantize_(
            tiny.build("level"), other, trajectories=store, include=include, state=tmp_path / "state"
        )


def test_a_loss_of_nan_stops_with_the_model_unharmed(tiny, recorded, monkeypatch) -> None:
    model = tiny.build("level")
    before = tiny.run(model, "level")
    plain = Student.output_loss
    monkeypatch.setattr(
        Student, "output_loss", lambda self, batch, step=0: plain(self, batch) * (float("nan") if step else 1)
    )
    with pytest.raises(
        quant.InputError, match=r"'factors': the loss of step 1 is nan; .* lower the learning"
    ):
        quant.quantize_(model, config("efficientdm"), trajectories=recorded("level"), include=SOME)
    assert torch.equal(tiny.run(model, "level"), before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_recording_too_short_to_hold_out_is_refused(tiny, tmp_path: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    conditions = torch.randn(4, 7, 24, generator=torch.Generator().manual_seed(0))
    store = quant.record(
        tiny.build("level"), FlowMatchEulerDiscreteScheduler(), conditions, tmp_path / "s", n_steps=2
    )
    with pytest.raises(quant.MissingDataError, match=r"1 sample to train on.*held_out_rows to 0") as caught:
        quant.quantize_(tiny.build("level"), config("qvgen"), trajectories=store)
    assert caught.value.exit_code == 4
