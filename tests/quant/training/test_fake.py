"""Layers in training: teacher and student in one model, and nothing of it in a checkpoint."""

from __future__ import annotations

import pytest
import torch

import quant
from quant.formats.quantizer import int_quantizer
from quant.methods.efficientdm.core import Adapted
from quant.training.fake import (
    FakeLayer,
    WeightSide,
    frozen,
    holding,
    in_training,
    layers_in_training,
    teaching,
)
from quant.training.sides import DynamicInput

NAME = "mid_block.resnets.0.conv1"


class Halved(WeightSide):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.master = torch.nn.Parameter(weight.detach() / 2)

    def weight(self) -> torch.Tensor:
        return self.master


def test_one_model_is_teacher_and_student(tiny) -> None:
    model = tiny.build("unet")
    before = tiny.run(model, "unet")
    layer = model.get_submodule(NAME)
    line = next(x for x in quant.plan(model, "rtn-w8a8").layers if x.name == NAME)
    fake = {NAME: FakeLayer(layer, line, Halved(layer.weight), train_bias=True)}
    with in_training(model, fake):
        assert layers_in_training(model) == [NAME]
        assert not torch.equal(tiny.run(model, "unet"), before)
        with teaching(fake):
            assert not torch.is_grad_enabled()
            assert torch.equal(tiny.run(model, "unet"), before)
        with torch.enable_grad():
            args, kwargs = tiny.inputs("unet")
            model(*args, **kwargs).sample.square().mean().backward()
        assert fake[NAME].side.master.grad is not None and fake[NAME].own["bias"].grad is not None
        assert [
            name for name, p in model.named_parameters() if p.grad is not None and "side" not in name
        ] == [f"{NAME}.own.bias"]
    assert layers_in_training(model) == [] and model.get_submodule(NAME) is layer
    assert torch.equal(tiny.run(model, "unet"), before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_gradients_are_off_for_a_while_and_on_again_after_an_error(tiny) -> None:
    model = tiny.build("odd")
    model.first.weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        raise KeyError
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["first.weight"]


def test_export_refuses_layers_in_training(tiny, tmp_path) -> None:
    model = tiny.build("unet")
    quant.quantize_(model, "rtn-w8a8", exclude=[NAME])
    layer = model.get_submodule(NAME)
    line = next(x for x in quant.plan(tiny.build("unet"), "rtn-w8a8").layers if x.name == NAME)
    with in_training(model, {NAME: FakeLayer(layer, line, Halved(layer.weight))}):
        with pytest.raises(quant.InputError, match=f"1 layers are in training .*{NAME}") as caught:
            quant.export(model, tmp_path / "m.safetensors")
        assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    quant.export(model, tmp_path / "m.safetensors")


def test_weights_that_are_held_have_the_gradients_of_all_forwards() -> None:
    layer = torch.nn.Linear(6, 3)
    line = quant.plan(torch.nn.Sequential(layer), "rtn-w8a8").layers[0]
    side = Halved(layer.weight)
    layers = {"0": FakeLayer(layer, line, side)}
    inputs = [torch.randn(2, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    found = []
    for held in (False, True):
        side.master.grad = None
        if held:
            with holding(layers):
                outputs = [layers["0"](x) for x in inputs]
        else:
            outputs = [layers["0"](x) for x in inputs]
        sum(y.square().sum() for y in outputs).backward()
        found.append((outputs, side.master.grad))
    (outputs, wanted), (again, gradient) = found
    assert all(torch.equal(x, y) for x, y in zip(outputs, again, strict=True))
    torch.testing.assert_close(gradient, wanted)
    assert layers["0"].held is None


def test_codes_in_bfloat16_forwards_are_the_stored_ones() -> None:
    """A product of factors in bfloat16 would lie elsewhere, and round elsewhere."""
    layer = torch.nn.Linear(64, 32)
    line = quant.plan(torch.nn.Sequential(layer), "efficientdm-w4a8").layers[0]
    side = Adapted(layer.weight, line, 8)
    side.up.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.05)
    fake, x, stored = FakeLayer(layer, line, side), torch.randn(5, 64), side.encoded().decode()
    with torch.autocast("cpu", torch.bfloat16):
        wanted = torch.nn.functional.linear(x, stored, layer.bias)
        assert torch.equal(fake(x), wanted)
        with holding({"0": fake}):
            assert torch.equal(fake(x), wanted)


def test_gradients_pass_dynamic_symmetric_inputs_as_they_pass_the_grid() -> None:
    quantizer = int_quantizer(4, "group", 4)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    side = DynamicInput(quantizer, "linear_input")
    (found,) = torch.autograd.grad((side(x) * weights).sum(), x)
    plain = quantizer.fake(x, "linear_input")
    (wanted,) = torch.autograd.grad((plain * weights).sum(), x)
    assert torch.equal(side(x), plain)
    torch.testing.assert_close(found, wanted)
