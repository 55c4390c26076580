"""A whole model in training: its layers, what they read, its teacher, and the loop around them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.families import family_of
from quant.formats.granularity import input_layout
from quant.formats.grids import Params
from quant.formats.schedule import Clock
from quant.layers.attention import AttentionFormat, attention_watchers, install_attention_, remove_attention_
from quant.plans.plan import LayerPlan, Plan
from quant.recordings.trajectories import Batch
from quant.registry import Context, Outcome
from quant.training.config import AlongConfig, TrainConfig
from quant.training.fake import FakeLayer, InputSide, WeightSide, holding, in_training, teaching
from quant.training.loop import Result, Task, distill, factor_for
from quant.training.optimize import Group, Optimizer, Rules
from quant.training.running.cost import Meter
from quant.training.sides import DynamicInput, Rows, StoredInput
from quant.training.source import Source
from quant.training.walk import Walk

Loss = Callable[[Batch, int], Tensor | tuple[Tensor, Tensor | float]]


class Student:
    """A model whose planned layers are in training.

    Parameters
    ----------
    model : torch.nn.Module
    plan : Plan
    config : TrainConfig
    context : Context
    weight : callable
        ``weight(module, line)``: the weight side of a layer.
    train_bias : bool
    attention : dict, optional
        What is rounded inside attention modules, in training too.

    Attributes
    ----------
    layers : dict of str to FakeLayer
    source : Source
    """

    def __init__(
        self, model: nn.Module, plan: Plan, config: TrainConfig, context: Context,
        weight: Callable[[nn.Module, LayerPlan], WeightSide], *, train_bias: bool = False,
        attention: dict[str, AttentionFormat] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.config, self.context = model, config, context
        combined, hold = config.guidance == "combined", config.held_out_rows > 0
        self.source = Source(context.recording, config.train_rows, combined, hold)
        self.clock = Clock(family_of(model).timestep_unit)
        self.attention = attention or {}
        self.rows: Rows | None = None
        self.length = 1  # points of one trajectory that follow each other in a batch
        self.cost, self.notes = Meter(), dict[str, Any]()
        lines = {line.name: line for line in plan.quantized}
        ranges = input_ranges(model, lines, self.source, config.calibration_rows)
        self.layers: dict[str, FakeLayer] = {}
        for name, line in lines.items():
            module = model.get_submodule(name)
            inputs = self._inputs(line, ranges.get(name))
            layer = FakeLayer(module, line, weight(module, line), inputs, train_bias)
            self.layers[name] = layer.to(module.get_parameter("weight").device)

    def _inputs(self, line: LayerPlan, start: Params | None) -> InputSide | None:
        quantizer = line.activation
        if quantizer is None:
            return None
        layout = input_layout(line.kind)
        if quantizer.schedule.kind == "dynamic":
            return DynamicInput(quantizer, layout)
        if start is None:  # the forward does not reach it: a range of zero
            shape = (1, 1, line.shape[1]) if line.kind == "Linear" else (1, line.shape[1], 1, 1)
            start = quantizer.blank_params(shape, layout)
        if quantizer.schedule.kind != "timestep":
            return StoredInput(quantizer, layout, start)
        if self.rows is None:
            self.rows = Rows(self.source.recording.timesteps, quantizer.schedule, self.clock)
        return StoredInput(quantizer, layout, start, self.rows)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put the layers in training into the model for a while."""
        install_attention_(self.model, self.attention)
        try:
            with in_training(self.model, self.layers, self.clock):
                yield
        finally:
            remove_attention_(self.model)

    @contextmanager
    def teaching(self) -> Iterator[None]:
        """Run a block as the full-precision teacher."""
        watchers = list(attention_watchers(self.model).values())
        try:
            for watcher in watchers:
                watcher.active = False
            with teaching(self.layers):
                yield
        finally:
            for watcher in watchers:
                watcher.active = True

    def target(self, batch: Batch) -> Tensor:
        """Predict with the full-precision teacher."""
        with self.teaching():
            return self.source.predict(self.model, batch).float()

    def walk(self) -> Walk | None:
        """Begin samples that the student moves, where the loss goes along the sampler's way."""
        config = self.config
        if not isinstance(config, AlongConfig) or not config.unroll:
            return None
        held = partial(holding, self.layers)
        return Walk(
            self.source, self.model, self.teaching, held, config.unroll, config.look_every,
            self.context.device,
        )  # fmt: skip

    def predict(self, batch: Batch) -> Tensor:
        """Predict with the student, with gradients."""
        return self.source.predict(self.model, batch).float()

    def output_loss(self, batch: Batch, step: int = 0) -> Tensor:
        """Error of the prediction against the teacher's."""
        target = self.target(batch)
        return self.distance(self.predict(batch), target)

    def distance(self, found: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, and that of its sum along trajectories where that counts (`path`)."""
        error, share = found - target, self.config.path
        alone = (unshrunk(found, target) if self.config.unshrunk else error.square()).mean()
        if not share:
            return alone
        along = error.unflatten(0, (-1, self.length)).sum(1).square().mean() / self.length
        return (1 - share) * alone + share * along

    def draw(self, generator: torch.Generator) -> Batch:
        """Draw points to train on: single ones, or of whole trajectories."""
        if not self.config.path:
            return self.source.draw(generator)
        batch, self.length = self.source.draw_paths(generator)
        return batch

    def held_out(self) -> float:
        """Squared error on held-out trajectories, relative to the predictions."""
        error = power = 0.0
        for batch in self.source.spread(self.config.held_out_rows, held=True):
            target = self.target(batch)
            error += float((self.predict(batch) - target).square().sum())
            power += float(target.square().sum())
        return error / max(power, 1e-30)

    def train(
        self, key: str, groups: list[Group], *, loss: Loss | None = None, rules: Rules | None = None,
        prepare: Callable[[int], None] | None = None,
        stepped: Callable[[int, Optimizer], None] | None = None, keep: Callable[[], bool] | None = None,
        fixed: Callable[[int], Hashable] | None = lambda step: 0,
    ) -> Result:  # fmt: skip
        """Run the loop over some parameters.

        Parameters
        ----------
        key : str
            Of the stage, for its checkpoint and its notes.
        groups : list of Group
        loss : callable, optional
            Default `output_loss`, or where several steps lead (`AlongConfig.unroll`), by which parameters
            are then also judged.
        rules : Rules, optional
        prepare, stepped, fixed : callable, optional
            See `quant.training.loop.Task`. By default the loss reads nothing that changes beside the batch.
        keep : callable, optional
            Whether the parameters are such as may be kept; always by default.
        """
        trained = {id(p) for group in groups for p in group.parameters.values()}
        for layer in self.layers.values():
            for module in (layer.side, layer.inputs, layer.own):
                for parameter in () if module is None else module.parameters():
                    parameter.requires_grad_(id(parameter) in trained)

        walk = self.walk() if loss is None else None
        judge = self.held_out if walk is None else walk.held_out
        # a graph reads ranges by timestep as a batch has them, and a walk has several timesteps
        plain = walk is not None and self.rows is not None

        def look() -> float | None:
            return judge() if keep is None or keep() else None

        def draw(step: int) -> Any:
            return self.draw(generator) if walk is None else walk.draw(step, generator)

        generator = torch.Generator().manual_seed(self.context.seed)
        usual = self.output_loss if walk is None else walk.loss
        task = Task(
            key=key, groups=groups, draw=draw, loss=loss or usual, steps=self.config.train_steps,
            rules=rules or Rules(),
            generator=generator, held_out=look if self.source.held else None,
            every=self.config.look_every, prepare=prepare, stepped=stepped,
            fixed=None if plain else fixed, table=None if self.rows is None else InputTable(self),
            precision=self.config.precision, factor=factor_for(self.model),
        )  # fmt: skip
        result = distill(task, self.context)
        self.cost.add(result.cost)
        self.notes[key] = result.notes()
        return result

    def named(self, part: str, names: Iterable[str] | None = None) -> dict[str, nn.Parameter]:
        """Parameters of one part of some layers: "side", "inputs" or "own", or below, as "side.master"."""
        found = {}
        for name in self.layers if names is None else names:
            for key, parameter in self.layers[name].named_parameters():
                if f"{key}.".startswith(f"{part}."):
                    found[f"{name}.{key}"] = parameter
        return found

    def scale_groups(self, rate: float, names: Iterable[str] | None = None) -> list[Group]:
        """Group scales of weights, each layer's with a rate in units of its own scale."""
        found = []
        for name in self.layers if names is None else names:
            scales = self.named("side.scale", [name])
            found += [Group({key: p}, rate * _size(p)) for key, p in scales.items()]
        return found

    def input_groups(self, rate: float, names: Iterable[str] | None = None) -> list[Group]:
        """Group stored ranges of inputs: scales with a rate in units of themselves, zero points in codes.

        An absolute rate that suits one layer's inputs is half of another's scale.
        """
        found = []
        for name in self.layers if names is None else names:
            scales = self.named("inputs.scale", [name])
            if scales:
                found.append(Group(scales, rate * _size(next(iter(scales.values())))))
                found.append(Group(self.named("inputs.zero", [name]), rate))
        return found

    def outcome(self, notes: dict[str, dict[str, Any]] | None = None, **about: Any) -> Outcome:
        """Codes and scales for good; `notes` by layer, `about` for the whole run."""
        found = notes or {}
        layers = {name: layer.result(found.get(name)) for name, layer in self.layers.items()}
        return Outcome(
            layers, self.attention, notes={**self.notes, **about}, cost=self.cost.summary()
        )  # fmt: skip


class InputTable:
    """Input ranges by timestep of a student: a CUDA graph reads all rows."""

    def __init__(self, student: Student) -> None:
        assert student.rows is not None
        self.rows = student.rows
        self.sides = [x.inputs for x in student.layers.values() if isinstance(x.inputs, StoredInput)]

    def whole(self) -> AbstractContextManager[None]:
        """Read all rows in a block."""
        return self.rows.whole()

    def unread(self, batch: Batch) -> Iterator[nn.Parameter]:
        """Ranges of timesteps that are not in a batch."""
        read = set(self.rows.nearest(batch.timestep.cpu().float()).tolist())
        for side in self.sides:
            if side.rows is not None:
                for row in set(range(len(side.scale))) - read:
                    yield side.scale[row]
                    if side.zero is not None:
                        yield side.zero[row]


def unshrunk(found: Tensor, target: Tensor) -> Tensor:
    """Squared error of predictions by sample, once scaled to the target, plus that of their scale: (n,)."""
    found, target = found.flatten(1), target.flatten(1)
    scale = (found * target).mean(1) / target.square().mean(1).clamp_min(1e-12)
    rest = found / scale.clamp_min(0.1)[:, None] - target
    return rest.square().mean(1) + (scale - 1).square() * target.square().mean(1)


def _size(scale: Tensor) -> float:
    return float(scale.detach().abs().mean())


@torch.no_grad()
def input_ranges(
    model: nn.Module, lines: dict[str, LayerPlan], source: Source, rows: int
) -> dict[str, Params]:  # fmt: skip
    """Find the starting ranges of stored inputs: those of the full-precision model, over all timesteps."""
    known = {name: line.activation for name, line in lines.items() if line.activation is not None}
    asked = {name: quantizer for name, quantizer in known.items() if quantizer.schedule.kind != "dynamic"}
    if not asked:
        return {}
    streams = {name: quantizer.stream() for name, quantizer in asked.items()}
    seen: set[str] = set()

    def look(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            asked[name].observe(streams[name], x, input_layout(lines[name].kind))
            seen.add(name)

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(look(name), with_kwargs=True) for name in asked
    ]
    try:
        for batch in source.spread(rows):
            source.predict(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {n: asked[n].params_of(streams[n], input_layout(lines[n].kind)) for n in asked if n in seen}
