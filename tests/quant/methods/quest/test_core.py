"""QuEST: measurement decides what is tuned, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import quant
from quant.layers.install import quant_layers
from quant.methods.quest import QuestConfig, core, policy
from quant.methods.quest.policy import measure
from quant.registry import Context
from quant.training.fake import teaching
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


def test_a_layers_share_is_its_error_alone(student) -> None:
    names, errors = [SOME[1][:-1] + "resnets.0.conv1", list(student.layers)[-1]], []
    with student.installed(), torch.no_grad():
        found = policy.error_shares(student, names, 2)
        assert all(layer.active for layer in student.layers.values())
        for name in names:
            others = {key: layer for key, layer in student.layers.items() if key != name}
            error = 0.0
            for batch in student.source.spread(2):
                with teaching(others):
                    rounded = student.predict(batch)
                error += float((rounded - student.target(batch)).square().sum())
            errors.append(error)
    assert found == pytest.approx({name: e / sum(errors) for name, e in zip(names, errors, strict=True)})


def test_the_first_and_last_layers_inputs_have_8_bits_and_no_others(tiny) -> None:
    lines = quant.plan(tiny.build("unet"), CONFIG).quantized
    assert {line.name for line in lines if line.activation.bits == 8} == {"conv_in", "conv_out"}
    assert {line.weight.bits for line in lines} == {4}


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


def test_the_loss_is_the_layers_errors_and_twice_the_outputs(student) -> None:
    """Equations 4 to 6: sum over the layers, one for each, and 2 L_G."""
    batch, names = student.source.spread(2)[0], [SOME[1][:-1] + "resnets.0.conv1", list(student.layers)[-1]]
    outputs: list[torch.Tensor] = []

    def keep(module: Any, args: Any, out: torch.Tensor) -> None:
        outputs.append(out)

    with student.installed(), torch.no_grad():
        handles = [student.layers[name].register_forward_hook(keep) for name in names]
        target, found = student.target(batch), student.predict(batch)
        for handle in handles:
            handle.remove()
        loss = core._loss(student, names, CONFIG)(batch, 0)
    wanted = 2 * (found - target).square().mean()
    for full, rounded in zip(outputs[:2], outputs[2:], strict=True):
        wanted += (rounded - full).square().mean()
    assert len(outputs) == 4
    torch.testing.assert_close(loss, wanted)


def test_each_stage_looks_at_its_own_layers(tiny, recorded, monkeypatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(core, "_loss", lambda student, names, config: seen.append(names))
    monkeypatch.setattr(Student, "train", lambda self, key, groups, loss: None)
    ledger = quant.quantize_(tiny.build("unet"), CONFIG, trajectories=recorded("unet"), include=SOME)
    tuned = {record.name: record.notes.get("tuned") for record in ledger.layers}
    assert [{tuned[name] for name in names} for names in seen] == [{"time"}, {"sensitive"}]
    assert sum(map(len, seen)) == sum(kind is not None for kind in tuned.values())


def test_layers_that_see_time_are_found_with_one_timestep_too(student, monkeypatch) -> None:
    with student.installed():
        wanted = policy.time_layers(student)
        monkeypatch.setattr(student.source.recording, "timesteps", student.source.recording.timesteps[:1])
        assert policy.time_layers(student) == wanted != []


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
