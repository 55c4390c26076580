"""Quantized layers: codes that change reach what computes, `.weight` is the effective weight."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quant
from quant.denoisers.offload import streamed
from quant.formats.quantizer import int_quantizer
from quant.formats.schedule import Clock, Schedule
from quant.layers.activation import Known
from quant.layers.attachments import LowRank, Smooth
from quant.layers.effective import folded
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, quant_layers
from quant.layers.quantized import make
from quant.layers.rotations import Rotate
from quant.layers.sinks import SinkDrop

X = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
KINDS = ("plain", "smooth", "rotate", "branch", "both")


def model(kind: str = "plain", seed: int = 0, bits: int = 8, bias: bool = True) -> nn.Module:
    """One linear; the codes are of the weight after the transform and without the branch."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(48, 20, bias=bias)).requires_grad_(False)
    weight, transform, branch = made[0].weight.detach(), None, None
    if kind in ("branch", "both"):
        branch = LowRank(0.1 * torch.randn(4, 48), 0.1 * torch.randn(20, 4))
        weight = weight - branch.weight()
    if kind in ("smooth", "both"):
        transform = Smooth(torch.rand(48) * 4 + 0.25)
    if kind == "rotate":
        transform = Rotate(48, seed=7, signed=True)
    if transform is not None:
        weight = transform.to_weight(weight)
    encoded = EncodedWeight.from_weight(weight, int_quantizer(bits, "channel"), "linear_weight")
    install_(made, {"0": LayerResult(encoded, int_quantizer(8, "token"), transform=transform, branch=branch)})
    return made


def error(value: Tensor, reference: Tensor) -> float:
    return float(((value - reference).norm() / reference.norm()).detach())


def loaded(there: nn.Module, source: nn.Module) -> None:
    there.load_state_dict(source.state_dict())


def assigned(there: nn.Module, source: nn.Module) -> None:
    there.load_state_dict(source.state_dict(), assign=True)


def layer_loaded(there: nn.Module, source: nn.Module) -> None:
    there[0].load_state_dict(source[0].state_dict(), strict=False)


@torch.no_grad()
def copied(there: nn.Module, source: nn.Module) -> None:
    for mine, other in zip(
        there.state_dict(keep_vars=True).values(), source.state_dict().values(), strict=True
    ):
        mine.copy_(other)


def replaced(there: nn.Module, source: nn.Module) -> None:
    for name, value in source[0].named_buffers():
        if name != "decoded":
            path, _, leaf = f"0.{name}".rpartition(".")
            setattr(there.get_submodule(path), leaf, value.clone())
    there[0].bias = source[0].bias


def data_set(there: nn.Module, source: nn.Module) -> None:
    own = there.state_dict(keep_vars=True)
    for name, value in source.state_dict().items():
        own[name].data = value.clone()


def called(there: nn.Module, source: nn.Module) -> None:
    """`functional_call` lends tensors for one forward and takes them back."""
    out = torch.func.functional_call(there, dict(source.state_dict()), (X,))
    assert torch.equal(out, source(X))
    loaded(there, source)


PATHS = (loaded, assigned, layer_loaded, copied, replaced, data_set, called)


@pytest.mark.parametrize("change", PATHS)
@pytest.mark.parametrize("kind", ["plain", "both"])
def test_codes_that_change_reach_every_backend(kind: str, change: Callable, tmp_path) -> None:
    there, source = model(kind), model(kind, seed=1)
    assert not torch.equal(there(X), source(X))
    change(there, source)
    assert torch.equal(there(X), source(X))
    assert torch.equal(there[0].weight + 0, source[0].weight + 0)
    with quant.use_backend(there, "kernels"), quant.use_backend(source, "kernels"):
        assert torch.equal(there(X), source(X))


def test_a_compiled_forward_sees_a_loaded_state() -> None:
    there, source = model(), model(seed=1)
    compiled = torch.compile(there, backend="eager", fullgraph=True)
    compiled(X)
    loaded(there, source)
    assert torch.equal(compiled(X), source(X))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_stand_on_their_own(kind: str) -> None:
    made, other = model(kind), model(kind, seed=1)
    expected = made(X)
    for copied_model in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(copied_model(X), expected)
        loaded(copied_model, other)
        assert torch.equal(copied_model(X), other(X)) and torch.equal(made(X), expected)


def test_a_copy_keeps_its_loras_and_refusals() -> None:
    made = model()
    quant.attach_lora(made, {"0.lora_A.weight": torch.ones(2, 48), "0.lora_B.weight": torch.ones(20, 2)})
    expected, twin = made(X), copy.deepcopy(made)
    quant.detach_lora(twin)
    assert torch.equal(made(X), expected) and torch.equal(twin(X), model()(X))
    with pytest.raises(quant.InputError, match="full-precision"):
        twin.load_state_dict(nn.Sequential(nn.Linear(48, 20)).state_dict(), strict=False)
    quant.restore_(twin).load_state_dict(nn.Sequential(nn.Linear(48, 20)).state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_cache_is_what_codes_say_in_any_type(dtype: torch.dtype) -> None:
    made = model(bias=False)
    before, scale = made(X), made[0].weight_scale.clone()
    made.to(dtype)
    assert torch.equal(made[0].decoded, made[0].encoded().decode(dtype)) and made[0].weight.dtype == dtype
    assert torch.equal(made[0].weight_scale, scale)
    made.float()
    assert torch.equal(made(X), before)  # nothing was lost on the way


def test_streamed_layers_leave_nothing_behind() -> None:
    made = model("both")
    before = made(X)
    with streamed(made, "cpu"):
        assert torch.equal(made(X), before)
    assert torch.equal(made(X), before)


def test_what_does_not_fit_is_refused_where_it_computes() -> None:
    made = model()
    for name, value, says in (
        ("codes", torch.zeros(20, 3, dtype=torch.uint8), "its codes are torch.uint8"),
        ("codes", made[0].codes.int(), "its codes are torch.int32"),
        ("weight_scale", torch.ones(20, 1, dtype=torch.float16), "'scale' is torch.float16"),
        ("weight_scale", torch.ones(3, 1), r"'scale' is torch.float32 \(3, 1\)"),
    ):
        broken = copy.deepcopy(made)
        setattr(broken[0], name, value)
        with pytest.raises(quant.InputError, match=says):
            broken(X)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_is_that_of_the_whole_layer(kind: str) -> None:
    made, plain = model(kind), nn.Linear(48, 20)
    weight = made[0].weight
    assert weight.shape == (20, 48) and weight.dtype == torch.float32 and not weight.requires_grad
    reference = made[0].original.weight
    assert error(weight + 0, reference) < 0.02
    assert float(weight.norm()) == pytest.approx(float(reference.norm()), rel=0.02)
    assert torch.cat([weight.data, weight]).shape == (40, 48) and weight.numpy().shape == (20, 48)
    assert torch.equal(copy.deepcopy(weight), weight + 0) and len(weight.tolist()) == 20
    plain.weight.data.copy_(weight)
    plain.bias.data.copy_(made[0].bias)
    assert error(made(X), plain(X)) < 0.04  # the inputs are rounded, too
    value, bias = folded(made[0])
    assert torch.equal(value, plain.weight) and torch.equal(bias, made[0].bias)
    x = X.clone().requires_grad_(True)
    (x @ weight.T).sum().backward()
    torch.testing.assert_close(x.grad[0], (weight + 0).sum(0))
    assert [name for name in made[0].state_dict() if name == "weight"] == []


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "in place": lambda layer: layer.weight.mul_(2),
    "through data": lambda layer: layer.weight.data.add_(1),
    "peft's merge": lambda layer: exec("layer.weight.data += 1", {"layer": layer}),
    "data set": lambda layer: setattr(layer.weight, "data", torch.zeros(20, 48)),
    "a view": lambda layer: layer.weight.view(-1)[3:].zero_(),
    "a row": lambda layer: layer.weight.__setitem__(0, 0.0),
    "unbound": lambda layer: layer.weight.unbind(0)[0].fill_(1),
    "detached": lambda layer: layer.weight.detach().T.clamp_(0),
    "as an output": lambda layer: torch.add(torch.zeros(20, 48), 1, out=layer.weight),
    "in a list": lambda layer: torch._foreach_mul_([layer.weight], 2),
    "initialised": lambda layer: nn.init.xavier_uniform_(layer.weight),
    "reset": lambda layer: layer.reset_parameters(),
    "a parameter": lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(20, 48))),
    "a tensor": lambda layer: setattr(layer, "weight", torch.zeros(20, 48)),
    "registered": lambda layer: layer.register_parameter("weight", None),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", ["plain", "both"])
def test_the_weight_cannot_be_written(kind: str, write: str) -> None:
    made = model(kind)
    before = made(X)
    with pytest.raises(quant.InputError, match=r"cannot be written: call quant\.restore_") as caught:
        WRITES[write](made[0])
    assert "\n" not in str(caught.value) and torch.equal(made(X), before)


def test_a_weight_that_does_not_say_everything_is_not_read() -> None:
    shifted = nn.Sequential(nn.Linear(48, 20))
    encoded = EncodedWeight.from_weight(shifted[0].weight, int_quantizer(8, "channel"), "linear_weight")
    smooth = Smooth(torch.rand(48) + 0.5, shift=0.25)
    install_(shifted, {"0": LayerResult(encoded, transform=smooth)})
    assert shifted[0].weight.shape == (20, 48)
    with pytest.raises(quant.InputError, match=r"takes back a shift of the input by 0\.25"):
        shifted[0].weight.sum()
    weight, bias = folded(shifted[0])
    torch.testing.assert_close(shifted(X), nn.functional.linear(X, weight, bias), rtol=1e-4, atol=1e-4)
    dropped = nn.Sequential(nn.Linear(48, 20))
    drop = SinkDrop(torch.ones(48), torch.tensor([0]))
    install_(dropped, {"0": LayerResult(encoded, transform=drop)})
    for act in (lambda: dropped[0].weight.sum(), lambda: folded(dropped[0])):
        with pytest.raises(quant.InputError, match="goes through SinkDrop"):
            act()


def test_an_encoder_layer_takes_no_short_cut_past_the_codes() -> None:
    """PyTorch's fast path multiplies by `linear1.weight` itself."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, dropout=0.0).eval()
    quant.quantize_(encoder, "rtn-w4a4")
    calls: list[int] = []
    encoder.linear1.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 48)
    with torch.no_grad():
        quick = encoder(x)
    torch.testing.assert_close(quick, encoder(x))
    assert calls == [1, 1] and "linear1" in quant_layers(encoder)


def test_what_tensors_say_is_read_again_when_they_change() -> None:
    table, reads = torch.zeros(2), []
    known = Known()

    def get() -> float:
        return known.get("first", [table], lambda: reads.append(1) or float(table[0]))

    assert [get(), get()] == [0.0, 0.0] and len(reads) == 1
    table[0] = 3.0  # written to
    assert [get(), get()] == [3.0, 3.0] and len(reads) == 2
    table = torch.full((2,), 3.0)  # another tensor of equal values
    assert get() == 3.0 and len(reads) == 3
    with torch.inference_mode():
        table = torch.ones(2)  # counts no writes: read every time
    assert [get(), get()] == [1.0, 1.0] and len(reads) == 5


def test_an_input_without_a_batch_is_a_batch_of_one() -> None:
    """As Linear and Conv2d take it: static scales gave an axis more, channels were taken for a batch."""
    generator = torch.Generator().manual_seed(2)
    static = int_quantizer(8, "tensor", schedule=Schedule(kind="static"))
    factor = torch.rand(16, generator=generator) + 0.5
    cases = [
        (nn.Linear(16, 6), static, "linear_weight", Smooth(factor), (5, 16)),
        (nn.Linear(16, 6), int_quantizer(4, "token"), "linear_weight", None, (5, 16)),
        (nn.Conv2d(16, 6, 3), int_quantizer(4, "sample"), "conv_weight", Smooth(factor, 1), (2, 16, 16, 9)),
        (nn.Conv2d(16, 6, 3), static, "conv_weight", None, (2, 16, 5, 4)),
    ]
    for original, activation, layout, transform, shape in cases:
        encoded = EncodedWeight.from_weight(original.weight.detach(), int_quantizer(8, "channel"), layout)
        params = {"scale": torch.full([1] * len(shape), 0.02)} if activation is static else {}
        layer = make(original, LayerResult(encoded, activation, params, transform=transform), Clock())
        x = torch.randn(shape, generator=generator)
        for layer.backend in ("simulated", "kernels"):
            assert torch.equal(layer(x[0]), layer(x[:1])[0])
        layer.active = False
        assert layer(x[0]).shape == layer(x[:1])[0].shape
