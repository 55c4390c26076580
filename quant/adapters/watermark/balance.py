"""Dynamic loss weights: whichever target is missed gains weight (EW-LoRA, Lin et al. 2026, section DLWS)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from quant.adapters.watermark.config import WatermarkConfig


@dataclass
class Balance:
    """Weights of both losses, their targets, and how often in a row each was met.

    The paper lets both targets rise for ever: 0.9 + 2 x 0.08 of matching bits can never be met, and the
    message's weight would grow without end. So both are capped.
    """

    config: WatermarkConfig
    picture: float = 1.0
    message: float = 0.0
    psnr_target: float = 0.0
    match_target: float = 0.0
    psnr_met: int = 0
    match_met: int = 0

    def __post_init__(self) -> None:
        self.psnr_target = self.psnr_target or min(self.config.psnr_target, self.config.psnr_cap)
        self.match_target = self.match_target or min(self.config.match_target, self.config.match_cap)

    def update(self, psnr: float, match: float) -> None:
        """Take one step's signal to noise (dB) and share of matching bits.

        A missed message target adds 2 gamma to the message's weight; otherwise a missed picture target adds
        gamma to the picture's. A target that was met `patience` times in a row rises.
        """
        rule = self.config
        if match < self.match_target:
            self.message += 2 * rule.increment
        elif psnr < self.psnr_target:
            self.picture += rule.increment
        self.match_met = self.match_met + 1 if match >= self.match_target else 0
        self.psnr_met = self.psnr_met + 1 if psnr >= self.psnr_target else 0
        if self.match_met >= rule.patience:
            self.match_target, self.match_met = min(self.match_target + rule.match_step, rule.match_cap), 0
        if self.psnr_met >= rule.patience:
            self.psnr_target, self.psnr_met = min(self.psnr_target + rule.psnr_step, rule.psnr_cap), 0

    def plain(self) -> dict[str, Any]:
        """Return the state as plain data, for `restored`."""
        return {key: value for key, value in asdict(self).items() if key != "config"}

    @classmethod
    def restored(cls, config: WatermarkConfig, state: dict[str, Any]) -> Balance:
        """Go on from a saved state."""
        return cls(config, **state)
