"""Steps from a CUDA graph: what a graph reads, when one is used, and when it is given up."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import quant
from quant.formats.granularity import weight_layout
from quant.registry import Context
from quant.training.config import TrainConfig
from quant.training.running.graph import PLAIN, Graphed, same
from quant.training.sides import Master
from quant.training.student import InputTable, Student


@dataclass
class Batch:
    x: Tensor
    condition: Tensor | None = None


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Stand in for CUDA's graphs on a CPU: "replaying" runs the step again on the captured batch."""
    wrong = {"by": 0.0, "captures": 0}

    class Graph:
        def replay(self) -> None:
            known = self.steps.captured
            loss = self.steps.toy(known.batch) + wrong["by"]
            (gradient,) = torch.autograd.grad(loss, self.steps.parameters)
            known.loss.copy_(loss.detach())
            known.gradients[0].copy_(gradient)

    @contextmanager
    def graph(g: Graph, stream: Stream):
        wrong["captures"] += 1
        if wrong.get("fails"):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        yield

    monkeypatch.setattr("torch.cuda.Stream", lambda device: Stream())
    monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    monkeypatch.setattr("torch.cuda.CUDAGraph", Graph)
    monkeypatch.setattr("torch.cuda.graph", graph)
    return wrong


def steps_of(weight: nn.Parameter) -> Graphed:
    """Steps of a toy; the graph changes where a hundred steps are full, and step 0 is plain."""

    def toy(batch: Batch) -> Tensor:
        return (weight * batch.x).square().sum()

    def backward(batch: Batch, step: int) -> Tensor:
        loss = toy(batch)
        loss.backward()
        return loss.detach()

    steps = Graphed(backward, [weight], None, "cpu")
    steps.fixed, steps.stream = (lambda step: None if step == 0 else step // 100), Stream()
    steps.toy = toy
    torch.cuda.CUDAGraph.steps = steps
    return steps


def run(steps: Graphed, weight: nn.Parameter, numbers: list[int]) -> None:
    for step in numbers:
        batch, weight.grad = Batch(torch.full((2,), float(step))), None
        loss = steps(batch, step)
        assert loss == 2 * step**2 * 9 and not loss.requires_grad
        assert weight.grad.tolist() == [6.0 * step**2] * 2


def test_a_graph_takes_over_after_it_has_been_right_twice(recorder: dict[str, float]) -> None:
    steps = steps_of(weight := nn.Parameter(torch.full((2,), 3.0)))
    run(steps, weight, [0, *range(1, PLAIN + 3)])
    assert (steps.replayed, recorder["captures"]) == (0, 1)
    run(steps, weight, [10, 11, 12])
    assert steps.replayed == 3
    run(steps, weight, [100, 101])  # the loss reads something else now
    assert (steps.replayed, recorder["captures"]) == (3, 1) and steps.refused == ""
    other = Batch(torch.ones(1))  # the last draw of an epoch, say
    run(steps, weight, [102, 103, 104, 105])
    assert steps.replayed == 4 and steps(other, 106) == 18 and steps.replayed == 4


def test_a_graph_that_says_something_else_is_given_up(recorder: dict[str, float]) -> None:
    steps = steps_of(weight := nn.Parameter(torch.full((2,), 3.0)))
    recorder["by"] = 10.0
    run(steps, weight, list(range(1, 20)))
    assert steps.replayed == 0 and "are not the plain step's" in steps.refused
    assert recorder["captures"] == 1


def test_a_capture_that_fails_leaves_plain_steps(recorder: dict[str, float]) -> None:
    steps = steps_of(weight := nn.Parameter(torch.full((2,), 3.0)))
    recorder["fails"] = 1
    run(steps, weight, list(range(1, 20)))
    assert steps.replayed == 0
    assert steps.refused == "capture failed: operation not permitted when stream is capturing"


def test_tensors_agree_by_their_norms() -> None:
    one = [torch.tensor(2.0), torch.tensor([1.0, 2.0]), None]
    assert same(one, one) and same([torch.tensor(0.0)], [torch.tensor(0.0)])
    assert same(one, [torch.tensor(2.0), torch.tensor([1.0, 2.000001]), None])
    assert not same(one, [torch.tensor(2.1), torch.tensor([1.0, 2.0]), None])
    assert not same(one, [torch.tensor(2.0), torch.tensor([1.0, 2.1]), None])
    assert not same(one, [torch.tensor(2.0), torch.tensor([1.0, 2.0]), torch.tensor(0.0)])
    assert not same(one, [torch.tensor(2.0), torch.tensor([1.0, torch.nan]), None])


def test_all_rows_of_a_table_give_what_the_rows_read_give(tiny, recorded) -> None:
    model = tiny.build("unet")
    recording = recorded("unet")
    plan = quant.plan(model, "efficientdm-w4a4", trajectories=recording)
    config = TrainConfig(train_rows=3, calibration_rows=4, held_out_rows=0)
    student = Student(
        model, plan, config, Context(recording=recording),
        lambda module, line: Master(module.weight, line.weight, weight_layout(line.kind)),
    )  # fmt: skip
    table = InputTable(student)
    generator = torch.Generator().manual_seed(0)
    with student.installed():
        batch = student.draw(generator)
        found = []
        for reading in (nullcontext, table.whole):
            for parameter in (ranges := student.named("inputs")).values():
                parameter.grad = None
            with torch.enable_grad(), reading():
                loss = student.output_loss(batch)
                loss.backward()
            if reading is not nullcontext:
                assert all(p.grad is not None for p in ranges.values())
                for parameter in table.unread(batch):
                    parameter.grad = None
            found.append((loss, {name: p.grad for name, p in ranges.items()}))
    (plain, wanted), (whole, every) = found
    assert torch.equal(plain, whole)
    assert 0 < sum(g is None for g in wanted.values()) < len(wanted)
    assert {n for n, g in wanted.items() if g is None} == {n for n, g in every.items() if g is None}
    assert all(torch.allclose(g, every[n]) for n, g in wanted.items() if g is not None)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", [
    "efficientdm-w4a4", "quest-w4a4", "binarydm-w1a4", "qvgen-w3a3", "qvgen-w4a4+helper=kept",
])  # fmt: skip
def test_methods_train_from_graphs_as_they_do_plainly(
    recipe: str, tiny, recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = "train_steps=60+look_every=20+train_rows=3+held_out_rows=4+calibration_rows=4"
    found = []
    for plain in (True, False):
        model = tiny.build("pixart").cuda()
        if plain:
            monkeypatch.setattr("quant.training.student.Student.train", _plainly(Student.train))
        ledger = quant.quantize_(model, f"{recipe}+{short}", trajectories=recorded("pixart"), seed=0)
        monkeypatch.undo()
        found.append([x for x in ledger.notes.values() if isinstance(x, dict) and "loss_last" in x])
    for plain, graphed in zip(*found, strict=True):
        assert "graphed_steps" not in plain and "no_graph" not in graphed
        assert graphed["graphed_steps"] > 5
        assert graphed["loss_last"] == pytest.approx(plain["loss_last"], rel=0.02)


def _plainly(train):
    return lambda self, *args, **options: train(self, *args, **{**options, "fixed": None})
