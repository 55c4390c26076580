"""A plan: every Linear and Conv2d exactly once, with its format or the reason why it is left alone."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from quant.plans.cost import TrainingCost
from quant.plans.layer import LayerPlan
from quant.plans.tables import to_html, to_text

_OPTIONAL = ("training", "notes", "cost", "bytes_other_before")
"""Left out of files where they say nothing."""


class Plan(BaseModel):
    """What a recipe would do to a model; made without changing it."""

    model_config = ConfigDict(extra="forbid")
    recipe: str = Field(description="preset name, or the method's name for a hand-made config")
    method: str
    config: dict[str, Any]
    model: str = Field(description="class of the model")
    layers: list[LayerPlan]
    bytes_other: int = Field(
        default=0, description="parameters and buffers outside Linear and Conv2d weights"
    )
    mac_rule: str = Field(default="not measured", description="how multiply-accumulates were counted")
    seconds: float = Field(default=0.0, description="estimated time of quantize_ on one CPU core")
    training: TrainingCost | None = Field(default=None, description="what is trained; None: nothing is")

    @property
    def bytes_before(self) -> int:
        """Bytes of the whole model as it was."""
        return self.bytes_other + sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of the whole model's tensors afterwards."""
        return self.bytes_other + sum(layer.bytes_after for layer in self.layers)

    @property
    def quantized(self) -> list[LayerPlan]:
        """Layers whose weight gets codes."""
        return [layer for layer in self.layers if not layer.skipped]

    @property
    def mean_weight_bits(self) -> float:
        """Bits a weight over *all* Linear and Conv2d weights, with scales, branches and skipped layers."""
        weights = sum(layer.n_weights for layer in self.layers)
        return 8 * sum(layer.bytes_after for layer in self.layers) / max(1, weights)

    def macs_share(self) -> dict[str, float]:
        """Share of multiply-accumulates at each bit-width; of weights where MACs were not measured."""
        measured = all(layer.macs is not None for layer in self.layers)
        sizes = [(layer.bits, (layer.macs or 0) if measured else layer.n_weights) for layer in self.layers]
        total = max(1, sum(size for _, size in sizes))
        share: dict[str, float] = {}
        for bits, size in sizes:
            share[bits] = share.get(bits, 0.0) + size / total
        return dict(sorted(share.items()))

    def summary(self) -> dict[str, Any]:
        """Flat totals for tables and metrics."""
        return {
            "recipe": self.recipe, "method": self.method, "model": self.model,
            "n_layers": len(self.layers), "n_quantized": len(self.quantized),
            "bytes_before": self.bytes_before, "bytes_after": self.bytes_after,
            "mean_weight_bits": round(self.mean_weight_bits, 4), "macs_share": self.macs_share(),
            "mac_rule": self.mac_rule,
            **({"training_steps": self.training.steps} if self.training else {}),
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON types; each distinct quantizer is written once and referred to by its index."""
        data = self.model_dump(mode="json")
        formats: list[Any] = []
        for layer in data["layers"]:
            for side in ("weight", "activation"):
                if layer[side] is not None:
                    if layer[side] not in formats:
                        formats.append(layer[side])
                    layer[side] = formats.index(layer[side])
        return {"formats": formats, **{k: v for k, v in data.items() if v or k not in _OPTIONAL}}

    def to_json(self, indent: int | None = None) -> str:
        """JSON text that `from_json` reads back to an equal object."""
        return json.dumps(self.to_dict(), indent=indent, sort_keys=True)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Undo `to_dict`."""
        formats = data.get("formats", [])
        layers = [
            {**layer, **{s: formats[layer[s]] for s in ("weight", "activation") if layer[s] is not None}}
            for layer in data["layers"]
        ]
        return cls.model_validate({**{k: v for k, v in data.items() if k != "formats"}, "layers": layers})

    @classmethod
    def from_json(cls, text: str) -> Any:
        """Undo `to_json`."""
        return cls.from_dict(json.loads(text))

    def headline(self) -> str:
        """One line: recipe, layers, bytes, mean bits, share of MACs."""
        share = ", ".join(f"{bits} {100 * part:.1f} %" for bits, part in self.macs_share().items())
        measure = "MACs" if self.mac_rule.startswith("counted") else "weights"
        return (
            f"{self.recipe} on {self.model}: {len(self.quantized)} of {len(self.layers)} layers, "
            f"{self.bytes_before / 1e6:.2f} MB to {self.bytes_after / 1e6:.2f} MB, "
            f"{self.mean_weight_bits:.2f} bits a weight; {measure}: {share}"
            + (f"; {self.training}" if self.training else "")
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.headline()})"

    def _repr_html_(self) -> str:
        return to_html(self.headline(), self.layers)

    def __str__(self) -> str:
        return to_text(self.headline(), self.layers)
