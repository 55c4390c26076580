"""Brain correlation: whether reconstructions, seen by an encoding model, are answered as the brain did.

Each picture goes through an image-to-fMRI encoder fitted on training trials; what it predicts is correlated
across voxels with the measured response to the stimulus, repeats averaged (Scotti et al. 2024, MindEye2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainit.metrics.tensors import pixcorr as rows_correlation
from brainit.subject import Subject
from brainit.voxels.encoder import fit_encoder
from brainit.voxels.scaling import VoxelScaler
from lab.decoding import same_data
from lab.errors import InputError, MissingDataError
from lab.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from lab.decoding.conditions import Step

FITTED = "encoder.safetensors"
LINEAR = "linear, from encoder-64's tokens to voxels, fitted on this subject's training trials"
_BATCH = 64


@dataclass(frozen=True)
class BrainCorrelation:
    """Scorer of one subject's test pictures.

    Parameters
    ----------
    predict : callable
        Pictures (n, H, W[, 3]) to predicted z-scored responses (n, n_voxels).
    measured : float32 array of shape (n, n_voxels)
        z-scored responses to the test pictures, repeats averaged.
    encoder : str
        What predicts, for reports.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    measured: np.ndarray
    encoder: str

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return each picture's correlation across voxels, float64 (n,)."""
        import torch

        predicted = torch.from_numpy(np.ascontiguousarray(self.predict(pictures)))
        return rows_correlation(predicted, torch.from_numpy(self.measured)).numpy()


def brain_correlation(
    step: Step,
    subject: Subject,
    device: str = "cpu",
    progress: Progress = silent,
    encoder: Path | str | None = None,
) -> BrainCorrelation:
    """Return the scorer of one subject's test pictures, in the order of their first appearance.

    Parameters
    ----------
    step : callable
        ``step(name, compute)``; keeps the linear encoder.
    subject : Subject
        With pictures; encoders see training trials alone.
    encoder : path, optional
        Run of ``brainlab brain encode`` that knows this subject; default a linear encoder, fitted here.
    """
    test = subject.part("test").mean_over_repeats()
    scaler = VoxelScaler.fit(subject.part("train").mean_over_repeats().betas)
    measured = scaler.apply(test.betas)
    if encoder is not None:
        predict = _universal(Path(encoder), subject, device)
        return BrainCorrelation(predict, measured, f"universal voxel encoder of {Path(encoder).name}")
    from lab import zoo

    network = cache(lambda: zoo.load("encoder-64", device))
    fitted = step("voxel-encoder", lambda: _fit(subject, scaler, network(), progress))

    def linear(pictures: np.ndarray) -> np.ndarray:
        tokens = _tokens(pictures, network(), silent)
        return (tokens - fitted["mean"]) @ fitted["axes"] @ fitted["voxels"].T

    return BrainCorrelation(linear, measured, LINEAR)


def check_encoder(run: Path, subject: Subject) -> None:
    """Refuse a run of ``brainlab brain encode`` that does not know this subject.

    Raises
    ------
    MissingDataError
        There is no finished run.
    InputError
        It is of another dataset, or knows no such subject, or one with other voxels or trials.
    """
    from brainit.io import read_state
    from lab.runs.settings import read_settings

    if not (run / FITTED).is_file() or not (run / "config.yaml").is_file():
        raise MissingDataError(
            f"voxel_encoder: {run} holds no {FITTED}; give a finished run of brainlab brain encode"
        )
    _, header = read_state(run / FITTED)
    dataset, voxels = read_settings(run / "config.yaml").get("dataset"), header.get("voxels", {})
    if dataset != subject.dataset or voxels.get(subject.name) != subject.n_voxels:
        known = ", ".join(f"{name} ({count} voxels)" for name, count in voxels.items())
        raise InputError(
            f"voxel_encoder: {run} knows {dataset} {known or 'nobody'}, not {subject.dataset} {subject.name} "
            f"({subject.n_voxels} voxels); fit it on this subject with brainlab brain encode"
        )
    _same_data(run, subject)


def _same_data(run: Path, subject: Subject) -> None:
    """Refuse an encoder of other trials under the same name: it may have learned from those tested."""
    from lab.runs.settings import read_settings

    same, start = same_data.agrees(run, subject), read_settings(run / "config.yaml").get("start")
    if same is None and start and Path(start).is_dir():
        _same_data(Path(start), subject)  # it was known before others joined
    elif same is False:
        raise InputError(
            f"voxel_encoder: {run} was fitted on other trials of {subject.name!r} than these, and may know "
            "what is tested; fit it on these with brainlab brain encode"
        )


def _universal(run: Path, subject: Subject, device: str) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from brainit.voxels.universal import Fitted
    from lab.decoding.encoder.measure import find_backbone
    from lab.images import planes, resize
    from lab.runs.settings import read_settings

    check_encoder(run, subject)
    named = str(read_settings(run / "config.yaml")["backbone"])
    backbone = find_backbone(named)
    fitted = Fitted.load(run / FITTED, backbone)

    def predict(pictures: np.ndarray) -> np.ndarray:
        images = torch.cat([resize(x, backbone.side) for x in planes(pictures).split(_BATCH)])
        return fitted.predict(images, subject.name, device)

    return predict


def _fit(
    subject: Subject, scaler: VoxelScaler, network: nn.Module, progress: Progress
) -> dict[str, np.ndarray]:
    train = subject.part("train").mean_over_repeats()
    features = _tokens(train.images(), network, progress)
    parts = min(max(train.n_trials // 6, 8), 64)
    name = subject.name
    encoder = fit_encoder({name: features}, {name: scaler.apply(train.betas)}, n_components=parts)
    return {
        "mean": encoder.basis.mean,
        "axes": encoder.basis.axes @ encoder.shared,
        "voxels": encoder.embeddings[name],
    }


def _tokens(pictures: np.ndarray, network: nn.Module, progress: Progress) -> np.ndarray:
    import torch

    from lab.images import to_model

    device, found = next(network.parameters()).device, []
    with torch.no_grad():
        for i in range(0, len(pictures), _BATCH):
            progress(i, len(pictures), "encoding pictures")
            found.append(network(to_model(pictures[i : i + _BATCH]).to(device)).flatten(1).cpu())
    return torch.cat(found).numpy()
