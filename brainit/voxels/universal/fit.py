"""Fit the universal encoder, or only the embeddings of a new subject."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from brainit.errors import InputError
from brainit.io import fingerprint
from brainit.processes import Processes
from brainit.progress import Progress, silent
from brainit.voxels.trials import VoxelTrials
from brainit.voxels.universal.backbone import Backbone
from brainit.voxels.universal.config import EncoderConfig
from brainit.voxels.universal.data import held_pictures
from brainit.voxels.universal.fitted import Fitted
from brainit.voxels.universal.loop import train
from brainit.voxels.universal.model import UniversalEncoder
from brainit.voxels.universal.score import correlations
from brainit.voxels.universal.taps import Pictures, Taps


def fit_universal(
    backbone: Backbone,
    pictures: Pictures,
    trials: Mapping[str, VoxelTrials],
    config: EncoderConfig,
    *,
    start: UniversalEncoder | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
    device: str = "cpu",
    processes: Processes | None = None,
) -> Fitted:
    """Train the encoder on training trials of one or several subjects.

    Parameters
    ----------
    backbone : Backbone
    pictures : Pictures
        A row for each picture that ``trials`` name.
    trials : mapping of VoxelTrials
    config : EncoderConfig
    start : UniversalEncoder, optional
        A fitted encoder: only embeddings of the subjects in ``trials`` are then trained, everything else
        stays; sizes come from it. How a new subject is embedded (published: without validation, which
        ``config.validation`` 0 gives).
    folder : path, optional
        Where a checkpoint goes after every epoch; training continues from it.
    progress : callable
    device : str
    processes : Processes, optional
        Default those that ``accelerate launch`` started.

    Returns
    -------
    Fitted
        At its best epoch by the 75th percentile of the voxels' validation correlations.

    Raises
    ------
    InputError
        Taps or trials that do not fit, a checkpoint of other data, or training that diverges.
    """
    together = processes or Processes.current(device)
    here = together.device(device)
    report = progress if together.first else silent
    if start is not None:
        same = ("taps", "bypass_rank", "bypass_scale", "features", "embedding", "embedding_std", "dropout")
        config = config.model_copy(update={name: getattr(start.config, name) for name in same})
    backbone.check_taps(config.taps)
    if max(int(own.rows.max()) for own in trials.values()) >= len(pictures):
        raise InputError(f"trials show more pictures than the {len(pictures)} that were given")
    encoder = _begin(backbone, pictures, trials, config, start).to(here)
    taps = Taps(backbone, encoder, pictures, here, report)
    held = held_pictures(trials, config)
    arrays = [a for own in trials.values() for a in (own.betas, own.rows)]
    arrays += [] if start is None else [value.cpu().numpy() for value in start.state_dict().values()]
    key = fingerprint([config.model_dump(), list(trials), backbone.name, start is not None], arrays)
    history = train(encoder, taps, trials, held, config, together, folder, key, report)
    encoder.eval()
    correlation, residuals = {}, {}
    for name, own in trials.items():
        out = np.isin(own.rows, held)
        if out.sum() > 1:
            predicted = taps.predict(own.rows[out], name).numpy()
            correlation[name] = correlations(predicted, own.betas[out]).astype(np.float32)
            residuals[name] = own.betas[out] - predicted
    return Fitted(encoder.cpu(), backbone.cpu(), history, correlation, residuals)


def _begin(
    backbone: Backbone,
    pictures: Pictures,
    trials: Mapping[str, VoxelTrials],
    config: EncoderConfig,
    start: UniversalEncoder | None,
) -> UniversalEncoder:
    """Build the encoder; initial weights depend on the seed alone."""
    with torch.no_grad():
        tokens = backbone.cpu()(pictures[torch.zeros(1, dtype=torch.long)].float(), config.taps)
    shape = (backbone.width, tokens[0].shape[1], max(config.taps))
    if start is not None and start.shape != shape:
        raise InputError(
            f"voxel encoder: it reads tokens {start.shape[:2]} (width, positions), {backbone.name} gives "
            f"{shape[:2]}; give the backbone that it was fitted with"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = UniversalEncoder(*shape, config)
        if start is not None:
            shared = {k: v for k, v in start.state_dict().items() if not k.startswith("voxels.")}
            encoder.load_state_dict(shared)
            encoder.requires_grad_(False)
        for name, own in trials.items():
            encoder.add_subject(name, own.betas.shape[1])
    return encoder
