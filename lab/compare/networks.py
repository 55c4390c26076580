"""Feature networks of the panel: one trained on photographs, one of the project's own domain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lab.errors import InputError
from lab.metrics import efficientnet, stlpips

LITE0 = f"{efficientnet.NAME}, 112"
DOMAIN = "encoder-64, mean token"


@dataclass
class Networks:
    """What could be loaded; `missing` says what could not and why."""

    lite: Any = None
    distance: Any = None
    encoder: Any = None
    missing: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, device: torch.device) -> Networks:
        """Load all on ``device``; the weights extra may be absent."""
        from lab import zoo

        found = cls()
        try:
            found.lite = efficientnet.load_efficientnet(device)
        except InputError as error:
            found.missing.append(f"{efficientnet.NAME}: {error}")
        try:
            found.distance = stlpips.load_stlpips(device)
        except InputError as error:
            found.missing.append(f"{stlpips.NAME}: {error}")
        if "encoder-64" in zoo.names():
            found.encoder = zoo.load("encoder-64", str(device))
        return found

    @torch.no_grad()
    def features(self, images: Tensor, batch: int = 128) -> dict[str, Tensor]:
        """Pooled features by network and layer, float64 (n, d), on the CPU; "head" is for identification."""
        rows: dict[str, list[Tensor]] = {}
        for some in images.split(batch):
            if self.lite is not None:
                taps = self.lite.features(some, 128, ["112", "head"])
                rows.setdefault(LITE0, []).append(taps["112"].float().mean((2, 3)))
                rows.setdefault("head", []).append(taps["head"].float())
            if self.encoder is not None:
                rows.setdefault(DOMAIN, []).append(self.encoder(some)[:, 1:].mean(1))
        return {name: torch.cat(found).double().cpu() for name, found in rows.items()}

    @torch.no_grad()
    def perceptual(self, images: Tensor, reference: Tensor, batch: int = 128) -> Tensor | None:
        """ST-LPIPS of each pair (n,), or None without its weights."""
        if self.distance is None:
            return None
        pairs = zip(images.split(batch), reference.split(batch), strict=True)
        return torch.cat([self.distance(a, b) for a, b in pairs]).double()
