"""BinaryDM: identities of greedy bases, gradients, mimicking, and bits that are really there."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import quant
from quant.denoisers.inventory import find_layers
from quant.formats.codebooks import BinaryGrid
from quant.formats.granularity import Granularity
from quant.formats.quantizer import Quantizer
from quant.layers.install import quant_layers
from quant.methods.binarydm import BinaryDmConfig
from quant.methods.binarydm.binarizer import Binary
from quant.methods.binarydm.core import formats
from quant.methods.binarydm.mimic import Mimic, features, main_directions, mimic_loss
from quant.registry import Context
from quant.training.student import Student

CONFIG = BinaryDmConfig(train_steps=3, train_rows=2, calibration_rows=6, held_out_rows=0, outer=0.2)


def binary(weight: torch.Tensor, bases: int, **options) -> Binary:
    quantizer = Quantizer(grid=BinaryGrid(bits=bases), granularity=Granularity(kind="channel"))
    return Binary(weight, quantizer, "linear_weight", **options)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_errors_of_greedy_bases_follow_from_their_scales() -> None:
    weight = drawn(8, 96)
    for bases in (1, 2):
        side = binary(weight, bases)
        expected = weight.square().sum(1) - sum(96 * s.square()[:, 0] for s in side.sigmas())
        error = (weight - side.weight()).square().sum(1)
        torch.testing.assert_close(error, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("bases", "expected"), [(1, 1 - 2 / math.pi), (2, 0.1306)])
def test_errors_on_gaussian_weights(bases: int, expected: float) -> None:
    weight = drawn(4, 100_000)
    error = (weight - binary(weight, bases).weight().detach()).square().mean() / weight.square().mean()
    assert float(error) == pytest.approx(expected, abs=2e-3)


def test_gradients_are_those_of_the_chain_rule() -> None:
    weight = drawn(3, 40) * 1.2  # some beyond 1
    side, g = binary(weight, 2), drawn(3, 40, seed=1)
    (side.weight() * g).sum().backward()
    s1, s2 = (s.detach() for s in side.sigmas())
    b1 = torch.where(weight < 0, -1.0, 1.0)
    rest = weight - s1 * b1
    b2 = torch.where(rest < 0, -1.0, 1.0)
    m1, m2 = (weight.abs() <= 1).float(), (rest.abs() <= 1).float()
    torch.testing.assert_close(side.master.grad, g * (s1 * m1 + s2 * m2 * (1 - s1 * m1)))
    torch.testing.assert_close(side.bases[0].grad, (g * b1 * (1 - s2 * m2)).sum(1, keepdim=True))
    torch.testing.assert_close(side.bases[1].grad, (g * b2).sum(1, keepdim=True))


def test_a_second_scale_of_zero_is_one_basis_and_scaling_moves_scales_alone() -> None:
    weight = drawn(5, 64)
    one, two = binary(weight, 1), binary(weight, 2)
    two.bases[1].data.zero_()
    assert torch.equal(one.weight(), two.weight())
    for side in (one, two):
        side.weight().sum().backward()
    torch.testing.assert_close(one.master.grad, two.master.grad)
    scaled = binary(weight * 3, 1)
    assert torch.equal(scaled.encoded().packed, one.encoded().packed)
    torch.testing.assert_close(scaled.sigmas()[0], one.sigmas()[0] * 3)
    zeros = binary(torch.zeros(2, 8), 1)  # sign(0) is +1, never a third level
    assert zeros.encoded().codes().eq(1).all()


def test_eight_weights_a_byte_and_codes_decode_to_what_was_trained() -> None:
    weight = drawn(6, 50)
    for bases in (1, 2):
        side = binary(weight, bases)
        for basis in side.bases:
            basis.data.mul_(1.3)
        encoded = side.encoded()
        assert encoded.packed.shape == (6, math.ceil(50 * bases / 8))
        assert torch.equal(encoded.decode(), side.weight().detach())
        side.bases[-1].data.mul_(-1)  # nothing holds a learned scale above zero
        assert torch.equal(side.encoded().decode(), side.weight().detach())
    closed = binary(weight, 1, learned=False)
    closed.master.data.mul_(2)
    torch.testing.assert_close(closed.sigmas()[0], 2 * weight.abs().mean(1, keepdim=True))


def test_mimicking() -> None:
    teacher = drawn(4, 6, 16) * torch.linspace(0.1, 3, 16)
    student = teacher + 0.1 * drawn(4, 6, 16, seed=1)
    whole, some = main_directions(teacher, 1), main_directions(teacher, 4)
    assert whole.shape == (16, 16) and some.shape == (16, 4)
    torch.testing.assert_close(whole.T @ whole, torch.eye(16), atol=1e-4, rtol=0)
    plain = (student - teacher).square().mean() / teacher.square().mean()
    torch.testing.assert_close(mimic_loss(student, teacher, whole), plain)
    assert float(mimic_loss(teacher, teacher, some)) == 0
    power = (
        (teacher.reshape(-1, 16) @ some).square().sum(),
        (teacher.reshape(-1, 16) @ whole[:, :4]).square().sum(),
    )
    torch.testing.assert_close(*power)  # the same main directions come first
    assert float(power[0]) > 0.4 * float(teacher.square().sum())
    image = teacher.transpose(1, 2).reshape(4, 16, 2, 3)  # channels, not width, are what directions are of
    assert main_directions(image, 4).shape == (16, 4)
    clip = image.unsqueeze(2)  # of one frame
    torch.testing.assert_close(mimic_loss(clip, clip * 1.1, some), mimic_loss(image, image * 1.1, some))


def test_joint_blocks_are_mimicked_in_both_streams() -> None:
    """Flux and SD3 give the text first, CogVideoX the picture, and SD3's last block no text."""

    class Joint(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
            return (None if x.sum() < 0 else x), 2 * x

    block = Joint()
    with features({"a": block}) as seen:
        block(torch.ones(1, 2, 3))
        assert {name: float(x[0, 0, 0]) for name, x in seen.items()} == {"a.0": 1.0, "a.1": 2.0}
        seen.clear()
        block(-torch.ones(1, 2, 3))
        assert set(seen) == {"a.1"}


def test_the_loss_is_the_outputs_and_the_mean_of_the_blocks_in_the_teachers_directions(
    tiny, recorded
) -> None:
    """L + lambda (1/M) sum L_i, directions by a singular value decomposition of the first features."""
    model = tiny.build("pixart")
    plan = quant.plan(model, CONFIG, include=["transformer_blocks.*.ff.*"])
    student = Student(
        model, plan, CONFIG, Context(recording=recorded("pixart")),
        lambda module, line: Binary(module.weight, line.weight, "linear_weight"),
    )  # fmt: skip
    seen: list[torch.Tensor] = []
    with student.installed(), torch.no_grad():
        loss, batch = Mimic(student, 4).loss, student.source.draw(torch.Generator().manual_seed(3))
        found = loss(batch, 0.3)
        handles = [
            block.register_forward_hook(lambda m, args, out: seen.append(out.flatten(0, 1)))
            for block in model.transformer_blocks
        ]
        student.target(student.source.spread(CONFIG.train_rows)[0])
        target, output = student.target(batch), student.predict(batch)
        for handle in handles:
            handle.remove()
    apart = []
    for first, teacher, rounded in zip(seen[:2], seen[2:4], seen[4:], strict=True):
        directions = torch.linalg.svd(first).Vh[: first.shape[1] // 4].T
        gap = ((rounded - teacher) @ directions).square().mean()
        apart.append(gap / (teacher @ directions).square().mean())
    wanted = (output - target).square().mean() + 0.3 * (apart[0] + apart[1]) / 2
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)


def test_a_layer_of_zeros_moves(tiny, recorded) -> None:
    model = tiny.build("pixart")
    name = "transformer_blocks.1.ff.net.2"
    model.get_submodule(name).weight.data.zero_()
    config = CONFIG.model_copy(update={"warm_up": 0})
    quant.quantize_(model, config, trajectories=recorded("pixart"), include=["transformer_blocks.1.*"])
    bases = quant_layers(model)[name].encoded().params["bases"]
    assert bool((bases != 0).any()) and float(bases.abs().max()) < 0.01


def test_outer_blocks_have_two_bases_and_the_rest_one(tiny) -> None:
    for name in ("unet", "pixart"):
        for layer in find_layers(tiny.build(name)):
            answer = formats(layer, CONFIG)
            if isinstance(answer, str):
                assert layer.depth is None or "norm" in layer.name, layer.name
                continue
            assert layer.depth is not None
            outer = min(layer.depth, 1 - layer.depth) < 0.2
            assert answer.weight.bits == (2 if outer else 1), layer.name
            assert answer.activation.bits == 4
    depths = {layer.name: layer.depth for layer in find_layers(tiny.build("unet"))}
    assert depths["conv_in"] is None and depths["down_blocks.0.resnets.0.conv1"] == 0
    assert depths["mid_block.resnets.0.conv1"] == 0.5 and depths["up_blocks.1.resnets.0.conv1"] == 1


def test_inputs_are_really_four_bits_and_counts_are_those_of_the_file(tiny, recorded, tmp_path) -> None:
    model = tiny.build("unet")
    ledger = quant.quantize_(model, CONFIG, trajectories=recorded("unet"))
    inputs: dict[str, torch.Tensor] = {}
    for name, layer in quant_layers(model).items():
        layer.input_quantizer.register_forward_hook(lambda m, a, out, n=name: inputs.__setitem__(n, out))
    tiny.run(model, "unet")
    assert len(inputs) > 20 and max(len(x.unique()) for x in inputs.values()) <= 15
    for fmt in ledger.attention.values():
        assert fmt.scores.bits == fmt.values.bits == 4
    assert ledger.attention
    planes = {r.name: r for r in ledger.layers if not r.skipped}
    for record in planes.values():
        rows, columns = record.shape[0], record.n_weights // record.shape[0]
        assert record.bytes_by["codes"] == rows * math.ceil(columns * record.weight.bits / 8)
    file = quant.export(model, tmp_path / "m.safetensors")
    assert file.stat().st_size == ledger.bytes_file
    weights = sum(r.n_weights for r in planes.values())
    bits = 8 * sum(r.bytes_after for r in planes.values()) / weights
    assert ledger.notes["bits_a_weight"] == pytest.approx(bits, abs=1e-3)
    rules = ledger.notes["binary_layers"]
    assert rules["operations"] < rules["operations_published_rule"] == pytest.approx(16.0)


def test_nothing_is_left_in_floating_point_where_files_are_to_be_small(tiny, recorded, tmp_path) -> None:
    model = tiny.build("pixart")
    config = CONFIG.model_copy(update={"outer": 0.0, "kept_bits": 6})
    ledger = quant.quantize_(model, config, trajectories=recorded("pixart"))
    bits = {record.name: record.weight.bits for record in ledger.layers}
    assert not any(record.skipped for record in ledger.layers) and set(bits.values()) == {1, 6}
    kept = {record.name for record in ledger.layers if record.activation is None}
    assert kept == {name for name, count in bits.items() if count == 6} and "proj_out" in kept
    before, out = tiny.run(model, "pixart"), tmp_path / "m.safetensors"
    assert quant.export(model, out).stat().st_size == ledger.bytes_file
    with torch.device("meta"):
        bare = tiny.build("pixart")
    quant.load(out, bare)
    assert torch.equal(tiny.run(bare, "pixart"), before)


def test_blocks_become_binary_from_the_middle_outwards(tiny, recorded, monkeypatch) -> None:
    seen: list[set[str]] = []
    plain = Student.output_loss

    def look(self: Student, batch, step: int = 0):
        seen.append({name for name, layer in self.layers.items() if layer.active})
        return plain(self, batch, step)

    monkeypatch.setattr(Student, "output_loss", look)
    config = CONFIG.model_copy(update={"mimicking": 0.0, "train_steps": 8, "warm_up": 2})
    quant.quantize_(tiny.build("unet"), config, trajectories=recorded("unet"))
    assert all(name.startswith("mid_block") for name in seen[0]) and seen[0] == seen[1] < seen[2]
    assert all(a <= b for a, b in pairwise(seen)) and len(seen[-1]) > 20


def test_parameters_are_kept_once_all_blocks_are_binary(tiny, recorded, monkeypatch) -> None:
    kept: list[bool] = []

    def look(self: Student, key: str, groups: object, **rest) -> None:
        for step in (0, CONFIG.warm_up):
            rest["prepare"](step)
            kept.append(rest["keep"]())

    monkeypatch.setattr(Student, "train", look)
    some = [f"{block}.resnets.0.conv1" for block in ("mid_block", "down_blocks.0")]
    quant.quantize_(tiny.build("unet"), CONFIG, trajectories=recorded("unet"), include=some)
    assert kept == [False, True]
