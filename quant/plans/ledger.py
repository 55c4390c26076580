"""The ledger: what was done to each layer, with true bytes, errors and the path that will run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from quant.io import write_text
from quant.layers.attention import AttentionFormat
from quant.plans.layer import LayerPlan
from quant.plans.plan import Plan
from quant.plans.tables import to_html


class LayerRecord(LayerPlan):
    """One line of a ledger: the plan's line and what came of it."""

    bytes_by: dict[str, int] = Field(
        default_factory=dict, description="codes, scales, zero_points, activation, transform, branch"
    )
    weight_sqnr_db: float | None = Field(
        default=None,
        description="signal to quantization noise of the effective weight, dB; None: exact or skipped",
    )
    path: str = Field(default="float", description="the kernel path that will run")
    notes: dict[str, Any] = Field(default_factory=dict, description="what the method chose for this layer")

    def as_plan(self) -> LayerPlan:
        """Cut down to the plan's part of this line, for comparing with the plan."""
        return LayerPlan(**{name: getattr(self, name) for name in LayerPlan.model_fields})


class Ledger(Plan):
    """What `quantize_` did. Stated bits and bytes are computed from it."""

    layers: list[LayerRecord]  # type: ignore[assignment]
    seed: int = 0
    versions: dict[str, str] = Field(default_factory=dict, description="of the libraries that took part")
    trajectories: str | None = Field(default=None, description="hash of the calibration trajectories")
    seconds_taken: float = Field(default=0.0, description="wall-clock time of quantize_")
    attention: dict[str, AttentionFormat] = Field(
        default_factory=dict, description="what is rounded inside attention modules, by their names"
    )
    notes: dict[str, Any] = Field(default_factory=dict, description="of the whole run, as what training cost")
    cost: dict[str, Any] = Field(
        default_factory=dict, description="of training: seconds, peak_bytes, steps; not in exported files"
    )
    launches: str = Field(
        default="", description="how a native model's kernels were launched when it last drew; empty: not yet"
    )
    bytes_header: int = Field(default=0, description="file overhead; set by export")
    bytes_other_before: int | None = Field(
        default=None, description="`bytes_other` before the model was cast to another type; None: it was not"
    )

    def by_category(self) -> dict[str, int]:
        """Bytes of codes, scales, zero points, side branches, ... and of everything left as it was."""
        total: dict[str, int] = {}
        for layer in self.layers:
            for category, size in layer.bytes_by.items():
                total[category] = total.get(category, 0) + size
        total["unquantized"] = self.bytes_other + sum(x.bytes_after for x in self.layers if x.skipped)
        return total

    @property
    def bytes_before(self) -> int:
        """Bytes of the whole model as it was when it was quantized."""
        cast = 0 if self.bytes_other_before is None else self.bytes_other_before - self.bytes_other
        return super().bytes_before + cast

    def count_stored(self, sizes: Mapping[str, int], total: int) -> None:
        """Count what was not quantized as it is stored: casting a model moves everything but codes and parts.

        Parameters
        ----------
        sizes : mapping of str to int
            Bytes of every parameter, by each of its names.
        total : int
            Bytes of all tensors of the file, shared ones once.
        """
        for layer in self.layers:
            if layer.skipped and layer.bytes_after:  # 0: tied to a layer that has them
                layer.bytes_after = sizes.get(f"{layer.name}.weight", layer.bytes_after)
        other = total - sum(layer.bytes_after for layer in self.layers)
        before = self.bytes_other if self.bytes_other_before is None else self.bytes_other_before
        self.bytes_other, self.bytes_other_before = other, None if other == before else before

    @property
    def bytes_file(self) -> int:
        """Bytes of the exported file (after `export`, header included)."""
        return self.bytes_after + self.bytes_header

    @property
    def arithmetic(self) -> str:
        """How the layers run: "simulated", or in how many natively, and how their kernels were launched."""
        paths = [layer.path for layer in self.layers if not layer.skipped]
        native = sum(path.startswith("native: ") for path in paths)
        if not native:
            return "simulated"
        return f"native in {native} of {len(paths)} layers" + (f", {self.launches}" if self.launches else "")

    def worst(self, count: int = 10) -> list[LayerRecord]:
        """Layers with the lowest weight SQNR first."""
        rated = [layer for layer in self.layers if layer.weight_sqnr_db is not None]
        return sorted(rated, key=lambda layer: layer.weight_sqnr_db or 0.0)[:count]

    def summary(self) -> dict[str, Any]:
        rated = [layer.weight_sqnr_db for layer in self.layers if layer.weight_sqnr_db is not None]
        return {
            **super().summary(), "seed": self.seed, "bytes_by": self.by_category(),
            "lowest_weight_sqnr_db": min(rated) if rated else None, "seconds_taken": self.seconds_taken,
            "paths": sorted({layer.path for layer in self.layers}),
            **{f"training_{name}": value for name, value in self.cost.items()},
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write JSON, atomically."""
        target = Path(path)
        write_text(target, self.to_json(indent=1) + "\n")
        return target

    def _repr_html_(self) -> str:
        return to_html(self.headline(), self.layers, sqnr=True)
