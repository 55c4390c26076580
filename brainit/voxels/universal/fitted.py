"""A fitted universal encoder: predictions, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from brainit.errors import InputError
from brainit.io import read_state, write_state
from brainit.voxels.universal.backbone import Backbone
from brainit.voxels.universal.config import EncoderConfig
from brainit.voxels.universal.model import UniversalEncoder
from brainit.voxels.universal.taps import Pictures, Taps

KIND = "universal voxel encoder"


@dataclass
class History:
    """What each epoch gave.

    Parameters
    ----------
    loss, score : list of float
        Mean training loss; validation score (empty without validation).
    best_epoch : int
        The epoch that is kept, from 0; -1 before the first.
    seconds : float
    """

    loss: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    best_epoch: int = -1
    seconds: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """A fitted encoder and what its held-out pictures say of it.

    Parameters
    ----------
    encoder : UniversalEncoder
        On the CPU, in evaluation mode.
    backbone : Backbone
    history : History
    correlation : dict of float32 array of shape (n_voxels,)
        Of predictions on held-out training pictures with the measured responses; empty without validation.
    residuals : dict of float32 array of shape (n_held, n_voxels)
        What the predictions of held-out pictures leave over, in z-scores: the noise of synthetic fMRI.
    """

    encoder: UniversalEncoder
    backbone: Backbone
    history: History
    correlation: Mapping[str, np.ndarray]
    residuals: Mapping[str, np.ndarray]

    def predict(self, pictures: Pictures, subject: str, device: str = "cpu") -> np.ndarray:
        """Predict z-scored responses to pictures (n, 3, h, w) in 0..1: float32 (n, n_voxels)."""
        taps = Taps(self.backbone, self.encoder.to(device), pictures, device)
        return taps.predict(np.arange(len(pictures)), subject).numpy()

    def save(self, path: Path) -> None:
        """Write everything but the backbone's weights into one safetensors file."""
        tensors = {f"encoder/{k}": v for k, v in self.encoder.state_dict().items()}
        for what in ("correlation", "residuals"):
            tensors |= {f"{what}/{k}": torch.from_numpy(v) for k, v in getattr(self, what).items()}
        header = {
            "kind": KIND,
            "backbone": self.backbone.name,
            "config": self.encoder.config.model_dump(),
            "shape": self.encoder.shape,
            "voxels": {name: len(self.encoder.table(name)) for name in self.encoder.names},
            "history": vars(self.history),
        }
        write_state(path, tensors, header)

    @classmethod
    def load(cls, path: Path, backbone: Backbone) -> Fitted:
        """Read what `save` wrote; the backbone must be the one that it was fitted with.

        Raises
        ------
        InputError
            The file holds something else, or was fitted on another backbone.
        """
        tensors, header = read_state(path)
        if header.get("kind") != KIND:
            raise InputError(f"{path} holds no {KIND}; give one that brain encode wrote")
        if header["backbone"] != backbone.name:
            raise InputError(
                f"{path} was fitted on backbone {header['backbone']!r}, not {backbone.name!r}; give that one"
            )
        encoder = UniversalEncoder(*header["shape"], EncoderConfig.model_validate(header["config"]))
        for name, count in header["voxels"].items():
            encoder.add_subject(name, count)
        encoder.load_state_dict(named(tensors, "encoder/"))
        found = [
            {k: v.numpy() for k, v in named(tensors, f"{what}/").items()}
            for what in ("correlation", "residuals")
        ]
        return cls(encoder.eval(), backbone, History(**header["history"]), *found)


def named(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
