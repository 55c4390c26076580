"""One layer of a plan: its format, or the reason why it is left alone, and its bytes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from quant.formats.granularity import input_layout, weight_layout
from quant.formats.quantizer import Quantizer


class LayerPlan(BaseModel):
    """One line of a plan."""

    model_config = ConfigDict(extra="forbid")
    name: str
    kind: str = Field(description="Linear or Conv2d")
    shape: tuple[int, ...] = Field(description="of the weight")
    weight: Quantizer | None = Field(default=None, description="format of the weight; None: not quantized")
    activation: Quantizer | None = Field(
        default=None, description="format of the input; None: floating point"
    )
    reason: str | None = Field(
        default=None, description="why the layer is skipped, or why its format differs"
    )
    macs: int | None = Field(
        default=None, description="multiply-accumulates of one forward; None: not measured"
    )
    bytes_before: int = Field(description="bytes of the weight as it was")
    bytes_after: int = Field(description="bytes of codes, scales, zero points and side branches")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="method settings of this layer, if overridden"
    )

    @property
    def skipped(self) -> bool:
        """The weight keeps its precision."""
        return self.weight is None

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bits(self) -> str:
        """`W4A8`; 16 or 32 for what stays in floating point."""
        kept = self.bytes_after if self.skipped else self.bytes_before  # a model may be cast afterwards
        full = 8 * kept // max(1, self.n_weights)
        weight = self.weight.bits if self.weight else full
        return f"W{weight}A{self.activation.bits if self.activation else full}"

    @property
    def cost(self) -> str:
        """Which scales need a rescale inside the sum: "", "weight", "activation" or both."""
        taps = self.n_weights // (self.shape[0] * self.shape[1])
        parts = []
        if self.weight and self.weight.granularity.cost(weight_layout(self.kind)) != "free":
            parts.append("weight")
        if self.activation and self.activation.granularity.cost(input_layout(self.kind), taps) != "free":
            parts.append("activation")
        return " + ".join(parts)
