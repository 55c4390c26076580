"""A unit in full precision: what it and its layers give for each calibration point."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant.training.blocks import Inputs, outputs_of

LIMIT = 1 << 28
"""Bytes of outputs that are kept; beyond them the unit runs again for every batch."""


class Teacher:
    """Outputs of a unit and of its layers, for any of the points.

    A point is drawn many times in a training (of 64 points, by 200 batches of 16: fifty times), so its
    outputs are kept where all of them fit.

    Parameters
    ----------
    block : torch.nn.Module
        The unit; it is copied.
    names : sequence of str
        Layers in it, "" for itself.
    inputs : Inputs
        In the full-precision model.
    size : int
        Points a forward.
    """

    def __init__(self, block: nn.Module, names: Sequence[str], inputs: Inputs, size: int) -> None:
        self.block, self.inputs = copy.deepcopy(block), inputs
        self.layers = {name: self.block.get_submodule(name) for name in names}
        self.kept = self._keep(size)

    @torch.no_grad()
    def __call__(self, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the unit's output, and those of its layers by name."""
        if self.kept is None:
            return self._run(index)
        output, layers = self.kept
        return output[index], {name: rows[index] for name, rows in layers.items()}

    def _run(self, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with outputs_of(self.layers) as seen:
            output = self.inputs.call(self.block, self.inputs.rows(index))
        return output, seen

    @torch.no_grad()
    def _keep(self, size: int) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Run all points; None if that is too much, or an output has not one row a point."""
        outputs: list[Tensor] = []
        found: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        for index in torch.arange(self.inputs.count).split(size):
            output, layers = self._run(index)
            every = [output, *layers.values()]
            held = sum(rows.nbytes for rows in every) * self.inputs.count
            if held > LIMIT * len(index) or any(len(rows) != len(index) for rows in every):
                return None
            outputs.append(output)
            for name, rows in layers.items():
                found[name].append(rows)
        return torch.cat(outputs), {name: torch.cat(rows) for name, rows in found.items() if rows}
