"""When parameters are chosen: once, for each timestep, or from the data of each call."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from quant.errors import InputError


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

    def rows(self, timesteps: Tensor, table: Tensor) -> Tensor:
        """Row of `table` (sorted timestep values) for each entry of `timesteps`.

        Raises
        ------
        InputError
            A timestep is missing and `match` is "exact".
        """
        keys = timesteps.reshape(-1).to(table)
        distance = (keys[:, None] - table[None]).abs()
        gap, row = distance.min(1)
        if self.match == "exact" and bool((gap > 1e-3 * (1 + keys.abs())).any()):
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
        Scheduler timesteps in one unit of the model's argument (`quant.families`): 1000 for Flux.
    """

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = unit
        self.timestep: Tensor | None = None

    def hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the root module: the second argument or the keyword `timestep`."""
        value = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        if value is not None:
            self.timestep = torch.as_tensor(value).detach().reshape(-1).float() * self.unit

    def now(self) -> Tensor:
        """Timesteps of this call, (1,) or (batch,)."""
        if self.timestep is None:
            raise InputError("this model has per-timestep scales but was called without a timestep")
        return self.timestep
