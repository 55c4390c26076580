"""When a graph answers a call and when not: signatures, proofs, changes, and what the ledger says."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

import quant
from quant.layers.install import quant_layers, state_of
from quant.layers.native import replays
from quant.layers.native.replays import CHECKS, MOST, REPLAYED, Replays, launched, replayed


class Toy(nn.Module):
    """A denoiser of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)
        self.read: Callable[[Tensor], Any] = lambda x: None

    def forward(self, x: Tensor, timestep: Tensor, factor: float = 1.0) -> Tensor:
        self.read(x)
        return self.last(self.first(x) + timestep.reshape(-1, 1)) * factor


class Right:
    """Stands for a graph: computes again, from the numbers it is given."""

    made = 0

    def __init__(self, forward: Any, flat: list[Any], spec: Any) -> None:
        type(self).made += 1
        self.forward, self.spec, self.flat = forward, spec, flat
        self.calls = 0

    def __call__(self, flat: list[Any]) -> Any:
        self.calls += 1
        args, kwargs = tree_unflatten(flat, self.spec)
        return self.forward(*args, **kwargs)


class Frozen(Right):
    """A graph of a forward that read the timestep in Python."""

    def __call__(self, flat: list[Any]) -> Any:
        return super().__call__([flat[0], *self.flat[1:]])


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Without gradients; CPU layers pass for native ones."""
    monkeypatch.setattr(replays, "_native", lambda layer: layer.backend == "kernels")
    Right.made = Frozen.made = 0
    with torch.no_grad():
        yield


def toy(capture: Any = Right) -> tuple[Toy, Replays]:
    torch.manual_seed(0)
    model = Toy().eval()
    quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    for layer in quant_layers(model).values():
        layer.backend = "kernels"
    kept = replays._KEPT[model] = Replays(capture)
    return model, kept


def inputs(step: int, n: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(step)
    return torch.randn(n, 64, generator=g), torch.tensor([500.0 - step])


def walk(model: nn.Module, steps: int, n: int = 3, start: int = 0) -> None:
    """Every call as it is without graphs."""
    for step in range(start, start + steps):
        wanted = model(*inputs(step, n))
        with replayed(model):
            assert torch.equal(model(*inputs(step, n)), wanted)


def test_the_same_shapes_come_from_a_graph_after_two_proofs() -> None:
    model, kept = toy()
    walk(model, 1 + CHECKS)
    assert (kept.launched, kept.replayed, Right.made) == (1 + CHECKS, 0, 1)
    ledger = state_of(model).ledger
    assert ledger.launches == "launched one by one, because no shapes of inputs came back more than 2 times"
    walk(model, 4, start=10)
    assert (kept.launched, kept.replayed, Right.made) == (3, 4, 1) and ledger.launches == REPLAYED
    walk(model, 2, n=2)  # a last smaller batch
    assert (kept.launched, kept.replayed, Right.made) == (5, 4, 2)
    with replayed(model):
        model(*inputs(3), factor=2.0)
    assert kept.launched == 6 and len(kept.known) == 3
    ledger.layers[0].path = "native: int8"
    assert ledger.arithmetic == "native in 1 of 2 layers, CUDA graph"


def test_no_more_graphs_are_kept_than_said() -> None:
    model, kept = toy()
    for n in range(1, MOST + 3):
        walk(model, 2, n=n)
    assert len(kept.known) == MOST and Right.made == MOST + 2
    walk(model, 3, n=1)  # the first went for longest: captured again
    assert Right.made == MOST + 3 and kept.replayed == 0


def test_a_frozen_timestep_is_found_before_it_is_used() -> None:
    model, kept = toy(Frozen)
    walk(model, 6)
    assert kept.replayed == 0 and kept.known == {}
    assert state_of(model).ledger.launches == (
        "launched one by one, because a replay gave other numbers than a plain forward"
    )


def test_the_same_timestep_again_proves_nothing() -> None:
    model, kept = toy(Frozen)
    x, t = inputs(0)
    for _ in range(5):
        with replayed(model):
            model(x, t)
    assert kept.replayed == 0 and kept.launched == 5
    walk(model, 3, start=1)
    assert kept.replayed == 0 and "other numbers" in kept.why


@pytest.mark.parametrize(
    ("read", "why"),
    [
        (lambda x: x.sum().item(), "Python reads a number off the device (aten._local_scalar_dense.default)"),
        (lambda x: x[x > 0], "a shape depends on the numbers (aten.index.Tensor)"),
        (lambda x: x.masked_select(x > 0), "a shape depends on the numbers (aten.masked_select.default)"),
        (torch.rand_like, "it draws random numbers (aten.rand_like.default)"),
        (lambda x: x.to("meta"), "it copies between cpu and meta (aten._to_copy.default)"),
    ],
)  # fmt: skip
def test_what_a_graph_would_do_once_is_refused(read: Any, why: str) -> None:
    model = toy()[0]
    model.read = read
    walk(model, 5)
    assert Right.made == 0 and state_of(model).ledger.launches == f"launched one by one, because {why}"


def test_once_refused_nobody_looks_again() -> None:
    """Looking takes a share of a small denoiser's forward."""
    model, kept = toy()
    model.read = lambda x: x.sum().item()
    looks: list[Any] = []
    real = replays.parts_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replays, "parts_of", lambda model: looks.append(model) or real(model))
        for _ in range(2):
            with replayed(model):
                for step in range(2):
                    model(*inputs(step))
                looks.clear()
                for step in range(5):
                    model(*inputs(step))
                assert not looks
    assert kept.launched == 14 and Right.made == 0
    model.read = lambda x: None  # another model as it were
    walk(model, 4)
    assert kept.replayed == 1


def test_what_it_repeats_is_not() -> None:
    model, kept = toy()
    q = torch.randn(1, 2, 4, 8)
    rows = torch.tensor([0, 2, 1])
    model.read = lambda x: (
        x[rows],
        torch.full((3,), 7.0),
        nn.functional.scaled_dot_product_attention(q, q, q),
    )
    walk(model, 4)
    assert kept.replayed == 1


def test_a_failed_capture_is_said() -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model, kept = toy(fails)
    walk(model, 4)
    why = "no graph could be captured: operation not permitted when stream is capturing"
    assert kept.words == f"launched one by one, because {why}"


def test_hooks_and_loras_see_every_call() -> None:
    model, kept = toy()
    walk(model, 4)
    seen: list[Tensor] = []
    handle = model.last.register_forward_hook(lambda module, args, out: seen.append(out))
    wanted = [model(*inputs(step)) for step in range(3)]
    seen.clear()
    with replayed(model):
        assert all(torch.equal(model(*inputs(step)), wanted[step]) for step in range(3))
    assert len(seen) == 3
    ledger = state_of(model).ledger
    assert "a hook (of a LoRA, a recorder, an inspector) is on last" in ledger.launches
    assert ledger.launches.startswith("CUDA graph in 1 of 7 calls, the others one by one, because")
    handle.remove()
    before = kept.replayed
    walk(model, 4)
    assert kept.replayed > before
    pair = {"first.lora_A.weight": torch.randn(4, 64), "first.lora_B.weight": torch.randn(64, 4)}
    quant.attach_lora(model, pair)
    before = kept.replayed
    walk(model, 5)
    assert kept.replayed == before and "is on first" in kept.why
    quant.detach_lora(model)
    walk(model, 5)
    assert kept.replayed > before


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.first.bias.add_(1),
        lambda model: setattr(model.first, "bias", nn.Parameter(torch.ones(64))),
        lambda model: setattr(model.first.bias, "data", torch.ones(64)),
        lambda model: setattr(model.last, "backend", "simulated"),
        lambda model: setattr(model.last, "stand_in", torch.zeros(64, 64)),
        lambda model: setattr(model, "last", nn.Identity()),
        lambda model: model.to(torch.float64),
    ],
    ids=["written", "replaced", "other data", "simulated", "stand-in", "layer", "type"],
)  # fmt: skip
def test_a_changed_model_gets_new_graphs(change: Callable[[Any], None]) -> None:
    model, kept = toy()
    walk(model, 4)
    assert kept.replayed == 1
    graph = next(iter(kept.known.values())).graph
    change(model)
    x, t = (value.to(next(model.parameters()).dtype) for value in inputs(0))
    calls, wanted = graph.calls, model(x, t)
    with replayed(model):
        assert torch.equal(model(x, t), wanted)
    assert graph.calls == calls and kept.replayed == 1


def test_a_model_without_timesteps_has_graphs_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64))
    quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    next(iter(quant_layers(model).values())).backend = "kernels"
    kept = replays._KEPT[model] = Replays(Right)
    for step in range(4):
        with replayed(model):
            model(inputs(step)[0])
    assert kept.replayed == 1


def test_gradients_and_odd_arguments_have_no_graph() -> None:
    model, kept = toy()
    with replayed(model), torch.enable_grad():
        model(*inputs(0))
    assert kept.why == "gradients are asked for"
    with replayed(model):
        model(*inputs(0), factor=torch.nn.Parameter(torch.ones(1)))
        with pytest.raises(RuntimeError):
            model(inputs(0)[0], torch.ones(1, device="meta"))
    assert kept.why == "arguments lie on cpu and meta"
    with replayed(model):
        with pytest.raises(TypeError):
            model(*inputs(0), factor=object())
    assert Right.made == 0


def test_a_recipe_that_looks_at_the_timestep_has_none() -> None:
    model, kept = toy()
    state_of(model).hook = model.register_forward_pre_hook(lambda *_: None)
    walk(model, 4)
    assert kept.why == "the recipe picks scales by the timestep's value in Python"


def test_the_arithmetic_in_force_is_a_part_of_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = toy()
    walk(model, 4)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    walk(model, 1)
    assert kept.replayed == 1 and len(kept.known) == 2


def test_what_is_not_native_stays_as_it_is() -> None:
    model, _ = toy()
    for layer in quant_layers(model).values():
        layer.backend = "simulated"
    with replayed(model):
        assert "forward" not in model.__dict__
    assert model not in replays._KEPT and state_of(model).ledger.launches == ""
    plain = Toy()
    with replayed(plain):
        assert "forward" not in plain.__dict__


def test_others_that_replace_the_forward_and_who_asks() -> None:
    model, kept = toy()
    with launched(model):
        walk(model, 5)
    assert kept.launched == 0
    assert state_of(model).ledger.launches == "launched one by one, because it was asked for"
    with replayed(model), replayed(model):
        model(*inputs(0))
    assert kept.launched == 1 and "forward" not in model.__dict__
    patched = model.forward
    model.__dict__["forward"] = patched
    walk(model, 5)
    assert kept.launched == 1 and model.__dict__["forward"] is patched
    assert "the forward of the model was replaced" in state_of(model).ledger.launches
    del model.__dict__["forward"]
    model.first.__dict__["forward"] = model.first.forward
    walk(model, 5)
    assert kept.why == "the forward of first was replaced" and Right.made == 0


def test_an_error_leaves_the_model_as_it_was() -> None:
    model, _ = toy()
    with pytest.raises(ValueError), replayed(model):
        model(torch.zeros(3, 5), torch.zeros(1))
    assert "forward" not in model.__dict__


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Real graphs: the same bytes, a capture that fails and leaves all as it was, memory given back."""

    def walk(model: nn.Module, steps: int = 7) -> None:
        for n in (5, 5, 2):
            for step in range(steps):
                x, t = (value.cuda() for value in inputs(step, n))
                wanted = model(x, t)
                with replayed(model):
                    assert torch.equal(model(x, t), wanted)

    def made() -> Toy:
        torch.manual_seed(0)
        model = Toy().eval().cuda()
        quant.quantize_(model, "rtn-w8a8", keep_originals=False)
        quant.native_(model)
        return model

    walk(made())  # what libraries keep
    for read in (lambda x: x.sum().item(), lambda x: x + torch.tensor([1.0], device="cuda")):
        model = made()
        model.read = read
        walk(model)
        assert state_of(model).ledger.launches.startswith("launched one by one, because")
        assert state_of(model).ledger.launches != f"launched one by one, because {replays.RARE}"
        torch.cuda.empty_cache()
        model.read = lambda x: None
        walk(model)
        assert state_of(model).ledger.launches.startswith("CUDA graph in ")
    del model
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = made()
    walk(model)
    assert state_of(model).ledger.launches == REPLAYED
    assert state_of(model).ledger.arithmetic == "native in 2 of 2 layers, CUDA graph"
    assert len(replays._KEPT[model].known) == 2
    del model
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before


def test_graphs_go_with_the_model() -> None:
    model = toy()[0]
    walk(model, 5)
    gone = weakref.ref(next(iter(replays._KEPT[model].known.values())).graph)
    assert gone() is not None
    gone().forward = None  # the stand-in holds the model, a graph does not
    kept = len(replays._KEPT)
    del model
    gc.collect()
    assert gone() is None and len(replays._KEPT) == kept - 1
