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
        rows = {name: whole[index] for name, whole in self.kept.items() if name is not None}
        return self.kept[None][index], rows

    def _run(self, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with outputs_of(self.layers) as seen:
            output = self.inputs.call(self.block, self.inputs.rows(index))
        return output, seen

    @torch.no_grad()
    def _keep(self, size: int) -> dict[str | None, Tensor] | None:
        """Run all points; None if that is too much, or an output has not one row a point."""
        found: dict[str | None, list[Tensor]] = {}
        for index in torch.arange(self.inputs.count).split(size):
            output, layers = self._run(index)
            every: dict[str | None, Tensor] = {None: output}
            every.update(layers)
            share = len(index) / self.inputs.count
            if sum(rows.nbytes for rows in every.values()) > LIMIT * share:
                return None
            for name, rows in every.items():
                if len(rows) != len(index):
                    return None
                found.setdefault(name, []).append(rows)
        return {name: torch.cat(rows) for name, rows in found.items()}
