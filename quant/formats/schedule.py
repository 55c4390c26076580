"""When parameters are chosen: once, for each timestep, or from the data of each call."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from quant.errors import InputError

EXACT = 1e-3
"""Relative distance at which two timesteps in float32 are one: schedulers round their own tables."""


class Reading(NamedTuple):
    """What a clock says."""

    timesteps: Tensor
    """(1,) or (batch,), as the scheduler counts."""
    tolerance: float
    """How far they may be from the true ones, relative: of the type that they arrived in."""


class Schedule(BaseModel):
    """static: one set from calibration. timestep: a table keyed by the timestep's value. dynamic: every call.

    A table is never read by a call counter: one extra forward would shift every later row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["static", "timestep", "dynamic"] = "dynamic"
    match: Literal["exact", "nearest"] = Field(
        default="exact",
        description="timestep not in the table: 'exact' is an error, 'nearest' takes the closest",
    )

    @property
    def label(self) -> str:
        """Short name for tables."""
        return self.kind

    def rows(self, now: Reading, table: Tensor) -> Tensor:
        """Row of `table` (sorted timestep values) for each timestep of a reading: the closest.

        Raises
        ------
        InputError
            A timestep is further from the closest than its type rounds, and `match` is "exact".
        """
        keys = now.timesteps.reshape(-1).to(table)
        distance = (keys[:, None] - table[None]).abs()
        gap, row = distance.min(1)
        if self.match == "exact" and bool((gap > now.tolerance * (1 + keys.abs())).any()):
            missing = keys[int(gap.argmax())].item()
            raise InputError(
                f"timestep {missing:g} is not in the calibrated table ({len(table)} values, {table.min():g} "
                f"to {table.max():g}): sample with the calibrated steps, or use match='nearest'"
            )
        return row


class Clock:
    """The current timestep of one model, read from its forward call.

    `copy.deepcopy` of a quantized model copies hook and layers together, so they stay on one clock.

    Parameters
    ----------
    unit : float
        Scheduler timesteps in one unit of the model's argument (`quant.denoisers.families`): 1000 for Flux.
    """

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = unit
        self.timestep: Tensor | None = None
        self.tolerance = EXACT
        self.samples: int | None = None  # of the model's call; None: not known
        self._of: Tensor | None = None
        self._rows: dict[Any, list[int]] = {}

    def hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the root module: the second argument or the keyword `timestep`."""
        sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        self.samples = len(sample) if isinstance(sample, Tensor) and sample.ndim else None
        value = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        if value is not None:
            value = torch.as_tensor(value).detach()
            self.timestep = value.reshape(-1).float() * self.unit
            # Flux's pipeline rounds twice: t to the latents' type, then t / 1000. Half an eps each
            rounded = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
            self.tolerance = max(EXACT, rounded)

    def now(self) -> Reading:
        """Timesteps of this call, and how far to trust them."""
        if self.timestep is None:
            raise InputError("this model has per-timestep scales but was called without a timestep")
        return Reading(self.timestep, self.tolerance)

    def shares(self, timesteps: int, count: int) -> tuple[int, int]:
        """How the rows of a layer's input belong to the timesteps of this call.

        Parameters
        ----------
        timesteps : int
            Of this call, more than one.
        count : int
            Rows of the input.

        Returns
        -------
        times, each : int
            The rows are all timesteps, `times` times over (guidance stacks whole batches), and of each sample
            `each` rows one after the other (a clip's frames, where a layer takes them for pictures).

        Raises
        ------
        InputError
            The input has not as many rows for each sample.
        """
        samples = self.samples or count
        if count % samples or samples % timesteps:
            raise InputError(
                f"a layer with ranges by timestep got {count} rows for {samples} samples at {timesteps} "
                "timesteps, which cannot be told apart: call with one timestep, or exclude the layer"
            )
        return samples // timesteps, count // samples

    def rows(self, schedule: Schedule, table: Tensor, values: tuple[float, ...]) -> list[int]:
        """Rows of a table for the timesteps of this call; layers with equal tables ask once.

        Parameters
        ----------
        values : tuple of float
            What the table holds.
        """
        if self._of is not self.timestep:
            self._of, self._rows = self.timestep, {}
        key = schedule.match, values
        if key not in self._rows:
            self._rows[key] = schedule.rows(self.now(), table).tolist()
        return self._rows[key]
