"""QuEST: measurement decides what is tuned, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import quant
from quant.layers.install import quant_layers
from quant.methods.quest import QuestConfig, core
from quant.methods.quest.policy import measure
from quant.registry import Context
from quant.training.sides import Master
from quant.training.student import Student

CONFIG = QuestConfig(
    train_steps=4, train_rows=2, calibration_rows=6, held_out_rows=0, probe_rows=2, rate_weight=1e-2,
    rate_input=0.01, sensitive=0.3,
)  # fmt: skip

SOME = ["time_embedding.*", "mid_block.*", "up_blocks.0.resnets.0.*"]
"""Layers that see time alone, and a block or more of those that see the picture."""


@pytest.fixture(scope="module")
def student(tiny, recorded) -> Student:
    model = tiny.build("level")
    plan = quant.plan(model, CONFIG, include=[*SOME, "*.time_emb_proj"])

    def side(module: torch.nn.Module, line: Any) -> Master:
        layout = "linear_weight" if line.kind == "Linear" else "conv_weight"
        return Master(module.weight, line.weight, layout)

    return Student(model, plan, CONFIG, Context(recording=recorded("level")), side)


def test_layers_that_see_time_alone_are_found_without_names(student) -> None:
    with student.installed():
        tuned = measure(student, 0.3, 1)
    named = {n for n in student.layers if "time_emb" in n}
    assert set(tuned.time) == named and len(named) > 3
    assert not set(tuned.time) & set(tuned.shares)
    assert sum(tuned.shares.values()) == pytest.approx(1.0)


def test_the_fewest_layers_that_have_the_share(student) -> None:
    with student.installed():
        found = {share: measure(student, share, 1) for share in (0.2, 0.6, 1.0)}
    shares = found[0.2].shares
    largest = sorted(shares.values(), reverse=True)
    for share, tuned in found.items():
        count = len(tuned.sensitive)
        assert sum(shares[name] for name in tuned.sensitive) >= share - 1e-6
        assert sum(largest[: count - 1]) < share  # one fewer would not do
    assert len(found[0.2].sensitive) < len(found[0.6].sensitive)


def test_without_rounding_every_loss_is_zero(student, monkeypatch) -> None:
    batch = student.source.recording.read([(student.source.train[0], 0)])
    names = list(student.layers)[:6]
    with student.installed(), torch.no_grad():
        rounded = core._loss(student, names, CONFIG)(batch, 0)
        for layer in student.layers.values():
            monkeypatch.setattr(layer, "active", False)
        plain = core._loss(student, names, CONFIG)(batch, 0)
    assert float(rounded) > 0 and float(plain) == 0


def test_errors_of_time_layers_do_not_depend_on_the_image(student) -> None:
    recording = student.source.recording
    keys = (student.source.train + student.source.held + [0, 1])[:2]
    with student.installed(), torch.no_grad():
        tuned = measure(student, 0.3, 2)
        first = [n for n in tuned.time if n.startswith("time_embedding")][:1]
        errors = []
        for key in keys:
            batch = recording.read([(key, 1)])
            config = CONFIG.model_copy(update={"output_weight": 0.0})
            errors.append(float(core._loss(student, first, config)(batch, 0)))
    assert errors[0] == pytest.approx(errors[1], rel=1e-5) and errors[0] > 0


def codes(tiny, recorded, **changes: Any) -> tuple[dict, dict, Any]:
    """Codes, stored parameters, and the ledger of a run."""
    model = tiny.build("level")
    config = CONFIG.model_copy(update=changes)
    ledger = quant.quantize_(model, config, trajectories=recorded("level"), include=SOME)
    layers = quant_layers(model)
    encoded = {name: layer.encoded() for name, layer in layers.items()}
    inputs = {n: layer.input_quantizer.scale.clone() for n, layer in layers.items() if layer.input_quantizer}
    return encoded, inputs, ledger


def test_only_what_was_chosen_moves(tiny, recorded) -> None:
    none, plain_inputs, _ = codes(tiny, recorded, stages="none")
    time, time_inputs, ledger = codes(tiny, recorded, stages="time")
    both, both_inputs, _ = codes(tiny, recorded, stages="time+sensitive")
    tuned = {r.name: r.notes.get("tuned") for r in ledger.layers}
    for name in none:
        assert torch.equal(none[name].params["scale"], both[name].params["scale"])  # weights' scales stay
        assert torch.equal(none[name].params["zero_point"], both[name].params["zero_point"])
        in_time = tuned[name] == "time"
        if not in_time:
            assert torch.equal(none[name].packed, time[name].packed)
            assert torch.equal(plain_inputs[name], time_inputs[name])
        else:  # the second stage leaves the first one's
            assert torch.equal(time[name].packed, both[name].packed)
            assert torch.equal(time_inputs[name], both_inputs[name])
        if tuned[name] is None:
            assert torch.equal(none[name].packed, both[name].packed)
            assert not torch.equal(plain_inputs[name], both_inputs[name])
    assert any(tuned[n] == "time" and not torch.equal(none[n].packed, time[n].packed) for n in none)
    assert any(tuned[n] == "sensitive" and not torch.equal(none[n].packed, both[n].packed) for n in none)
    assert 0 < ledger.notes["time_weights"] < 1 and 0 < ledger.notes["sensitive_weights"] < 1
