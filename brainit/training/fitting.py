"""Fit Brain-IT: clusters, ridge, networks and calibration, all from training trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit.config import BrainITConfig, parse_config
from brainit.errors import InputError
from brainit.io import fingerprint
from brainit.network.model import BrainIT
from brainit.processes import Processes
from brainit.progress import Progress, silent
from brainit.subject import Subject
from brainit.training.batches import Batch, LearningData
from brainit.training.decoder import BrainDecoder, build_network
from brainit.training.grouping import fold_encoder, group_voxels
from brainit.training.loop import train_network
from brainit.training.stacking import combine, fit_weights, fixed_weights
from brainit.training.targets import Targets, TargetScaler, TargetTable, as_table
from brainit.training.trials import SyntheticTrials, TrainingTrials, fold_groups, prepare
from brainit.voxels.clusters import Clusters
from brainit.voxels.encoder import VoxelEncoder
from brainit.voxels.ridge import Ridge, fit_ridge, fit_ridge_loo

_GROUP_BATCH = 64


def fit(
    subjects: Sequence[Subject],
    targets: TargetTable | Mapping[str, tuple[torch.Tensor, Sequence[torch.Tensor]]],
    config: BrainITConfig | None = None,
    checkpoint_dir: str | Path | None = None,
    progress: Progress = silent,
    *,
    external: Targets | None = None,
    features: np.ndarray | None = None,
    external_features: np.ndarray | None = None,
    key: str = "stimulus_id",
    device: str = "cpu",
) -> BrainDecoder:
    """Train a decoder on the training trials of one or several subjects.

    Parameters
    ----------
    subjects : sequence of Subject
        Only trials with ``split == "train"`` are looked at.
    targets : TargetTable, or mapping of id to (tokens (T, D), [maps (C, h, w), ...])
        Of every training stimulus (or category, see ``key``).
    config : BrainITConfig, optional
        Default: the "small" preset.
    checkpoint_dir : path, optional
        Training continues from there after a kill, and ends with the same numbers; a finished decoder is
        loaded.
    progress : callable
        ``progress(done, total, what)``.
    external : Targets, optional
        Targets of pictures the subjects never saw, used with fMRI that the encoder predicts. They must hold
        no test stimulus.
    features : array of shape (n_targets, n_features), optional
        What the encoder predicts voxels from, a row for every target; default the flattened targets.
    external_features : array of shape (n_external, n_features), optional
        Needed with ``external`` where ``features`` is given.
    key : {"stimulus_id", "labels"}
        What the targets are keyed by; "labels" for category decoding.
    device : str
        Where ridge and networks are trained; the decoder that comes back is on the CPU.

    Returns
    -------
    BrainDecoder
    """
    started = time.monotonic()
    config = config or parse_config()
    table = as_table(targets)
    if external is not None and external.shapes != table.targets.shapes:
        raise InputError(
            f"external targets have shapes {external.shapes}, the stimuli's {table.targets.shapes}"
        )
    if (features is not None) and external is not None and external_features is None:
        raise InputError("external pictures need external_features where features are given")
    trials = prepare(subjects, table, key=key, average_repeats=config.care.average_repeats)
    used = np.unique(np.concatenate([own.rows for own in trials.values()]))
    scaler = TargetScaler.fit(table.targets.select(used))
    flat = scaler.apply(table.targets)
    outside = None if external is None else scaler.apply(external)
    arrays = [a for own in trials.values() for a in (own.betas, own.rows, own.group)] + [flat[used].numpy()]
    arrays += [] if outside is None else [outside.numpy()]
    arrays += [a for a in (features, external_features) if a is not None]
    mark = fingerprint([config.model_dump(), list(trials)], arrays)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    done = _finished(folder, mark)
    if done is not None:
        return done

    feature_rows = flat.numpy() if features is None else np.asarray(features, np.float32)
    outside_rows = (
        external_features if external_features is not None else (None if outside is None else outside.numpy())
    )
    stages = 1 + len(trials) * config.care.ridge
    progress(0, stages, "grouping voxels")
    groups = group_voxels(config, subjects, trials, feature_rows, outside_rows)
    ridges = {}
    if config.care.ridge:
        parts = _ridge_groups(scaler)
        for name, own in trials.items():
            size = f"{len(own.betas)} trials, {flat.shape[1]} targets"
            progress(1 + len(ridges), stages, f"fitting ridge of {name}: {size}")
            ridges[name] = fit_ridge(own.betas, flat[own.rows].numpy(), groups=parts, device=device)
    progress(stages, stages, "voxels grouped, ridge fitted")
    folds = fold_groups(trials, config.care.folds, config.train.validation, config.train.seed)
    networks, histories = [], []
    held: list[HeldOut] = []
    for member, valid_groups in enumerate(folds):
        progress(0, 1, f"network {member + 1} of {len(folds)}: preparing")
        data, oof_ridge = _learning_data(trials, flat, valid_groups, config, scaler, device)
        own_encoder = fold_encoder(config, trials, valid_groups, feature_rows, outside_rows)
        if outside is not None and own_encoder is not None and config.care.synthetic_share > 0:
            places = own_encoder.coordinates(outside_rows)
            made = SyntheticTrials(own_encoder, places, outside, config.care.synthetic_noise, device)
            data = replace(data, synthetic=made)
        net = _start(config, groups, scaler.shapes, member, own_encoder)

        def told(done: int, total: int, what: str, member: int = member) -> None:
            progress(
                member * total + done, len(folds) * total, f"network {member + 1} of {len(folds)}: {what}"
            )

        history = train_network(
            net,
            data,
            config.train,
            config.care,
            member=member,
            folder=None if folder is None else folder / f"network_{member}",
            key=mark,
            progress=told,
            device=device,
        )
        networks.append(net)
        histories.append({**vars(history), "seconds": round(history.seconds, 2)})
        stimuli = {n: own.group[np.isin(own.group, list(valid_groups))] for n, own in trials.items()}
        held += _out_of_fold(net.to("cpu"), data.valid, oof_ridge, stimuli)
    weights, scores = _calibrate(held, scaler, config)
    report = {
        "fingerprint": mark,
        "clusters": groups.occupancy(),
        "training": histories,
        "out_of_fold": scores,
        "n_train": {name: len(own.rows) for name, own in trials.items()},
        "parameters": sum(p.numel() for net in networks for p in net.parameters()),
        "seconds": round(time.monotonic() - started, 2),
        "synthetic": outside is not None and config.care.synthetic_share > 0,
    }
    decoder = BrainDecoder(
        config,
        networks,
        groups,
        {n: own.scaler for n, own in trials.items()},
        ridges,
        scaler,
        weights,
        report,
        _held_out(held, weights, scaler),
    )
    together = Processes.current(device)
    if folder is not None and together.first:
        decoder.save(folder)
    together.wait()
    return decoder


def _finished(folder: Path | None, mark: str) -> BrainDecoder | None:
    if folder is None or not (folder / "decoder.safetensors").is_file():
        return None
    decoder = BrainDecoder.load(folder)
    if decoder.report.get("fingerprint") != mark:
        raise InputError(
            f"{folder} holds a decoder of other data or settings; choose another folder or delete it"
        )
    return decoder


def _start(
    config: BrainITConfig,
    groups: Clusters,
    shapes: list[tuple[int, ...]],
    member: int,
    encoder: VoxelEncoder | None,
) -> BrainIT:
    """Build a network whose initial weights depend on the seed and the member alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed * 1009 + member)
        net = build_network(config, groups.labels, groups.n_clusters, shapes)
        if config.model.functional_init and encoder is not None:
            for part in net.networks:
                tokenizer = part.tokenizer
                mix = torch.randn(encoder.shared.shape[1], tokenizer.width)
                for name, own in encoder.embeddings.items():
                    start = torch.from_numpy(own) @ mix
                    start = start / start.std().clamp(min=1e-12) * tokenizer.voxel_std(len(own))
                    tokenizer.set_embeddings(name, start)
    return net


def _learning_data(
    trials: Mapping[str, TrainingTrials],
    flat: torch.Tensor,
    valid_groups: set[str],
    config: BrainITConfig,
    scaler: TargetScaler,
    device: str,
) -> tuple[LearningData, dict[str, torch.Tensor]]:
    """Cut one fold; ridge is fitted on its training part alone."""
    train, valid, oof = {}, {}, {}
    ridges: dict[str, Ridge] = {}
    residual = config.care.residual_on_ridge
    for name, own in trials.items():
        out = np.isin(own.group, list(valid_groups))
        if (~out).sum() < 3:
            raise InputError(
                f"subject {name!r}: only {(~out).sum()} trials are left to train on; lower train.validation"
            )
        inside, held = torch.from_numpy(own.rows[~out]), torch.from_numpy(own.rows[out])
        base = held_base = None
        if config.care.ridge:
            parts, seen = _ridge_groups(scaler), flat[inside].numpy()
            if residual:
                ridge, loo = fit_ridge_loo(own.betas[~out], seen, groups=parts, device=device)
            else:
                ridge, loo = fit_ridge(own.betas[~out], seen, groups=parts, device=device), None
            oof[name] = torch.from_numpy(ridge.predict(own.betas[out])) if out.any() else flat[:0]
            if loo is not None:
                ridges[name], base, held_base = ridge, torch.from_numpy(loo), oof[name]
        train[name] = Batch(name, torch.from_numpy(own.betas[~out]), flat[inside], base)
        if out.any():
            valid[name] = Batch(name, torch.from_numpy(own.betas[out]), flat[held], held_base)
    return LearningData(train, valid, ridges), oof


def _ridge_groups(scaler: TargetScaler) -> list[np.ndarray]:
    """Columns that share a penalty: fine structure is harder to read from the brain than the gist."""
    return [index.numpy() for index in scaler.groups.values()]


@dataclass(frozen=True)
class HeldOut:
    """One subject's trials of one fold: what was to be predicted, and by whom what."""

    subject: str
    stimuli: np.ndarray
    target: torch.Tensor
    network: torch.Tensor
    ridge: torch.Tensor | None


@torch.no_grad()
def _out_of_fold(
    net: BrainIT,
    valid: Mapping[str, Batch],
    ridge: Mapping[str, torch.Tensor],
    stimuli: Mapping[str, np.ndarray],
) -> list[HeldOut]:
    out = []
    for name, own in valid.items():
        parts = torch.cat([net.forward_flat(x, name) for x in own.betas.split(_GROUP_BATCH)])
        out.append(HeldOut(name, stimuli[name], own.target, parts, ridge.get(name)))
    return out


def _held_out(
    held: Sequence[HeldOut], weights: dict[str, tuple[float, float]], scaler: TargetScaler
) -> dict[str, tuple[np.ndarray, torch.Tensor]]:
    """Put the folds of each subject together, calibrated as at test."""
    found: dict[str, list[tuple[np.ndarray, torch.Tensor]]] = {}
    for one in held:
        flat = combine(scaler.groups, weights, one.network, one.ridge).half()
        found.setdefault(one.subject, []).append((one.stimuli, flat))
    return {
        name: (np.concatenate([s for s, _ in folds]), torch.cat([f for _, f in folds]))
        for name, folds in found.items()
    }


def _calibrate(
    held: Sequence[HeldOut], scaler: TargetScaler, config: BrainITConfig
) -> tuple[dict[str, tuple[float, float]], dict[str, Any]]:
    target, network = (torch.cat([getattr(row, what) for row in held]) for what in ("target", "network"))
    ridge = None if any(row.ridge is None for row in held) else torch.cat([row.ridge for row in held])
    residual, groups = config.care.residual_on_ridge, scaler.groups
    weights = fit_weights(groups, target, network, ridge, residual=residual, how=config.care.calibrate)
    plain = combine(groups, fixed_weights(groups, residual=residual), network, ridge)
    candidates = {"network": plain, "calibrated": combine(groups, weights, network, ridge), "ridge": ridge}
    scores: dict[str, Any] = {"n_trials": len(target), "weights": {k: list(v) for k, v in weights.items()}}
    for what, values in candidates.items():
        if values is not None:
            scores[what] = {name: float(((values - target)[:, i] ** 2).mean()) for name, i in groups.items()}
    return weights, scores
