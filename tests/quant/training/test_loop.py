"""The distillation loop on a toy: resuming, held-out choice, a loss that is not a number, what it cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import quant
from quant.registry import Context
from quant.training.loop import Result, Task, distill, factor_for
from quant.training.optimize import Group, Optimizer, Rules
from quant.training.state import State

TARGET = torch.linspace(-1, 1, 6)


class Killed(BaseException):
    pass


def toy(state: State | None = None, stop: int | None = None, **changes) -> tuple[nn.Parameter, Result]:
    """Fit two vectors to noisy targets drawn from a generator; `stop` kills it at that step."""
    generator = torch.Generator().manual_seed(5)
    a, b = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.ones(6))

    def draw(step: int) -> torch.Tensor:
        if step == stop:
            raise Killed
        return TARGET + 0.1 * torch.randn(6, generator=generator)

    def loss(batch: torch.Tensor, step: int) -> torch.Tensor:
        return (a + b - batch).square().mean()

    options = {
        "steps": 30, "rules": Rules(schedule="cosine"), "generator": generator, "every": 10,
        "held_out": lambda: float((a + b - TARGET).detach().square().mean()),
    }  # fmt: skip
    groups = [Group({"a": a}, 0.1), Group({"b": b}, 0.01, decay=0.1)]
    task = Task("toy", groups, draw, changes.pop("loss", loss), **{**options, **changes})
    return a, distill(task, Context(state=state))


@pytest.mark.parametrize("rules", [
    Rules(schedule="cosine"), Rules(schedule="linear", warm_up=5, clip=0.5), Rules(optimizer="sgd"),
])  # fmt: skip
@pytest.mark.parametrize("stop", [7, 10, 25])
def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path, rules: Rules, stop: int) -> None:
    whole, wanted = toy(rules=rules)
    folder = tmp_path / "state"
    with pytest.raises(Killed):
        toy(State(folder), stop=stop, rules=rules)
    resumed, found = toy(State(folder), rules=rules)
    assert torch.equal(resumed, whole)
    assert (found.losses, found.held_out, found.best) == (wanted.losses, wanted.held_out, wanted.best)
    again, done = toy(State(folder), stop=0, rules=rules)  # finished: nothing is drawn
    assert torch.equal(again, whole) and done.losses == wanted.losses


def test_the_best_of_what_is_held_out_is_kept(tmp_path: Path) -> None:
    judged = iter([3.0, 1.0, 0.5, 2.0])
    a, result = toy(held_out=lambda: next(judged))
    assert result.held_out == {0: 3.0, 10: 1.0, 20: 0.5, 30: 2.0} and result.best == 20
    last, _ = toy(held_out=None)
    short, _ = toy(held_out=None, state=State(tmp_path / "s"))
    assert torch.equal(last, short) and not torch.equal(a, last)
    assert result.notes()["held_out"] == 0.5 and result.notes()["best_step"] == 20
    with pytest.raises(quant.InputError, match="the error of what is held out is nan; the parameters of"):
        toy(held_out=lambda: float("nan"))
    never = toy(held_out=lambda: None)[1]
    assert never.best is None and never.held_out == {}


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def poisoned(batch: torch.Tensor, step: int) -> torch.Tensor:
        value = batch.sum() * 0 + (torch.nan if step == 17 else 1.0)
        return value.requires_grad_()

    folder = tmp_path / "state"
    with pytest.raises(
        quant.InputError, match=r"step 17 is nan; the parameters of step 10 are kept in .*lower"
    ):
        toy(State(folder), loss=poisoned)
    _, resumed = toy(State(folder))  # with a loss that is one
    assert len(resumed.losses) == 30


def test_a_last_step_that_breaks_the_parameters_is_no_result(tmp_path: Path) -> None:
    """Its loss, from before it, is a number; without anything held out nobody would look."""
    broken = nn.Parameter(torch.zeros(1))

    def loss(batch: None, step: int) -> torch.Tensor:
        # the derivative of a root at 0 is infinite, its value is 0
        return broken.sum() ** 2 if step < 11 else broken.sum().mul(0).sqrt()

    group = Group({"whole": nn.Parameter(torch.zeros(2)), "p": broken}, 0.1)
    task = Task("toy", [group], lambda step: None, loss, 12, every=6)
    with pytest.raises(quant.InputError, match=r"p is not finite after 12 steps; the parameters of step 6"):
        distill(task, Context(state=State(tmp_path / "s")))
    saved = State(tmp_path / "s").get("toy")
    assert saved is not None and saved.values["done"] == 6
    assert bool(torch.isfinite(saved.tensors["parameter.p"]).all())


def test_gradients_that_float16_cannot_hold_arrive() -> None:
    """A mean over 2^18 predictions with errors of 0.02: gradients of 1.5e-7 a prediction, times 0.01."""
    found = {}
    for kind in (torch.float16, torch.float32):
        p, layer = nn.Parameter(torch.full((8,), 0.5)), nn.Linear(1, 1).to(kind)
        x = torch.full((2**15, 8), 0.01, dtype=kind)

        def loss(batch: None, step: int, p=p, x=x) -> torch.Tensor:
            return (x * p.to(x.dtype)).float().sub(0.025).square().mean()

        groups = [Group({"p": p}, 1e4)]
        task = Task("toy", groups, lambda step: None, loss, 1, Rules(optimizer="sgd"))
        assert factor_for(layer) == (2**16 if kind == torch.float16 else 1)
        task.factor = factor_for(layer)
        distill(task, Context())
        found[kind] = p.detach() - 0.5
    assert bool(found[torch.float32].all())
    torch.testing.assert_close(found[torch.float16], found[torch.float32], rtol=5e-3, atol=0)


def test_gradients_that_are_too_large_for_float16_are_tried_with_less(tmp_path: Path) -> None:
    """A gradient of 4 times 2^16 is infinite in float16: the step moves nothing, the next one is as ever."""
    p = nn.Parameter(torch.full((8,), 0.5))

    def loss(batch: None, step: int) -> torch.Tensor:
        return (p.half() * 4).float().sum()

    groups = [Group({"p": p}, 0.125)]
    task = Task("toy", groups, lambda step: None, loss, 2, Rules(optimizer="sgd"), every=1, factor=2.0**16)
    distill(task, Context(state=State(tmp_path / "s")))
    assert p.tolist() == [0.0] * 8  # one step of 0.125 times 4
    saved = State(tmp_path / "s").get("toy")
    assert saved is not None and saved.values["factor"] == 2**12


def test_cost_and_progress() -> None:
    heard: list[tuple[int, int, str]] = []
    task = Task(
        "toy", [Group({"p": (p := nn.Parameter(torch.ones(2)))}, 0.1)], lambda step: None,
        lambda batch, step: p.square().sum(), 12,
    )  # fmt: skip
    result = distill(task, Context(progress=lambda *said: heard.append(said)))
    assert [done for done, _, _ in heard] == list(range(1, 13)) and {total for _, total, _ in heard} == {12}
    assert all("loss" in what and "left" in what for _, _, what in heard)
    assert result.cost.steps == 12 and result.cost.seconds > 0 and result.cost.peak_bytes > 1 << 20
    assert result.losses[-1] < result.losses[0]


def test_a_parameter_without_a_gradient_keeps_every_bit() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 0.7))
    optimizer = Optimizer([Group({"used": used, "unused": unused}, 0.1, decay=0.1)], Rules(), 10)
    (used.sum() + unused.sum()).backward()
    optimizer.step()
    before = unused.detach().clone()
    for _ in range(5):  # momentum and decay would move it
        used.sum().backward()
        optimizer.step()
    assert torch.equal(unused, before) and used[0] < 0.6


def test_a_factor_on_gradients_moves_sgd_as_a_rate_does_and_adam_not_at_all() -> None:
    def path(kind: str, rate: float, factor: float) -> torch.Tensor:
        p = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = Optimizer([Group({"p": p}, rate, gradient=factor)], Rules(optimizer=kind), 5)
        for _ in range(5):
            p.square().sum().backward()
            optimizer.step()
        return p.detach()

    torch.testing.assert_close(path("sgd", 0.01, 4.0), path("sgd", 0.04, 1.0))
    torch.testing.assert_close(path("adam", 0.01, 4.0), path("adam", 0.01, 1.0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(path("adam", 0.04, 1.0), path("adam", 0.01, 1.0), atol=1e-2)


def test_two_parameters_of_one_name_are_refused() -> None:
    groups = [Group({"p": nn.Parameter(torch.ones(1))}, 0.1), Group({"p": nn.Parameter(torch.ones(1))}, 0.1)]
    with pytest.raises(ValueError, match="one name"):
        Optimizer(groups, Rules(), 1)
