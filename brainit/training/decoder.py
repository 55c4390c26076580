"""A trained Brain-IT decoder: predict, look at attention, save and load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit.config import BrainITConfig, parse_config
from brainit.errors import InputError
from brainit.io import read_state, write_state, write_text
from brainit.network.model import BrainIT, brain_it
from brainit.subject import Subject
from brainit.training.stacking import Weights, combine
from brainit.training.targets import Prediction, TargetScaler
from brainit.voxels.clusters import Clusters
from brainit.voxels.ridge import Ridge
from brainit.voxels.scaling import VoxelScaler

FORMAT = 1
_CHUNK = 32  # trials predicted at once, bounds memory


@dataclass(frozen=True)
class BrainDecoder:
    """Networks, ridge and scalings of one or several subjects.

    Parameters
    ----------
    config : BrainITConfig
    networks : list of BrainIT
        Their outputs are averaged.
    clusters : Clusters
    scalers : mapping of str to VoxelScaler
        One for each subject.
    ridges : mapping of str to Ridge
        The baseline beside every prediction (standardised flat targets); empty where it was switched off.
    target_scaler : TargetScaler
    weights : dict of str to (float, float)
        Weight of ridge and of the network in each part.
    report : mapping
        Losses, out-of-fold errors, cluster occupancy, seconds.
    held : mapping of str to (str array (n,), float16 tensor (n, n_values))
        Training stimuli of each subject that were held out, and the standardised prediction for each by
        networks and ridge that had not seen it; see :meth:`held_out`.
    """

    config: BrainITConfig
    networks: list[BrainIT]
    clusters: Clusters
    scalers: Mapping[str, VoxelScaler]
    ridges: Mapping[str, Ridge]
    target_scaler: TargetScaler
    weights: Weights
    report: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, tuple[np.ndarray, torch.Tensor]] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects this decoder knows."""
        return list(self.scalers)

    def _betas(self, subject: Subject) -> np.ndarray:
        if subject.name not in self.scalers:
            raise InputError(
                f"the decoder does not know subject {subject.name!r}; it was trained on {self.subjects}"
            )
        return self.scalers[subject.name].apply(subject.betas)

    @torch.no_grad()
    def _network(self, betas: np.ndarray, subject: str) -> torch.Tensor:
        rows = []
        for i in range(0, len(betas), _CHUNK):
            x = torch.from_numpy(betas[i : i + _CHUNK])
            rows.append(torch.stack([net.eval().forward_flat(x, subject) for net in self.networks]).mean(0))
        return torch.cat(rows)

    def predict(self, subject: Subject) -> Prediction:
        """Predict tokens and structural maps for every trial of ``subject``, in the targets' units.

        Trials are taken as they are; average repeats before (``subject.part("test").mean_over_repeats()``).
        """
        betas = self._betas(subject)
        network = self._network(betas, subject.name)
        ridge = torch.from_numpy(self.ridges[subject.name].predict(betas)) if self.ridges else None
        return self.target_scaler.invert(combine(self.target_scaler.groups, self.weights, network, ridge))

    def predict_network(self, subject: Subject) -> Prediction:
        """Predict with the networks alone (``residual_on_ridge``: ridge plus their uncalibrated output)."""
        betas = self._betas(subject)
        flat = self._network(betas, subject.name)
        if self.config.care.residual_on_ridge:
            flat = flat + torch.from_numpy(self.ridges[subject.name].predict(betas))
        return self.target_scaler.invert(flat)

    def predict_ridge(self, subject: Subject) -> Prediction:
        """Predict with the ridge baseline alone."""
        if not self.ridges:
            raise InputError("this decoder was trained without the ridge baseline; set care.ridge to true")
        return self.target_scaler.invert(self.ridges[subject.name].predict(self._betas(subject)))

    def predict_mean(self, n_trials: int) -> Prediction:
        """Say "the mean training picture" for every trial."""
        return self.target_scaler.invert(torch.zeros(n_trials, len(self.target_scaler.mean)))

    def held_out(self, subject: str) -> tuple[np.ndarray, Prediction]:
        """Return the training stimuli that were held out and what was predicted of them, calibrated.

        For settings that are chosen without test trials. Single trials where a stimulus was shown once.
        """
        if subject not in self.held:
            raise InputError(f"no held-out trials of subject {subject!r}; known: {sorted(self.held)}")
        stimuli, flat = self.held[subject]
        return stimuli, self.target_scaler.invert(flat.float())

    def attention_map(self, subject: Subject, token: int = 0, scale: int | None = None) -> np.ndarray:
        """Share of every voxel in one output, averaged over the networks.

        Parameters
        ----------
        subject : Subject
        token : int
            Index of the token, or of the position (row-major) where ``scale`` is given.
        scale : int, optional
            Structural scale to look at instead of the tokens.

        Returns
        -------
        float32 array of shape (n_trials, n_voxels)
            Each row sums to 1; ``subject.to_image`` puts it into the brain.
        """
        shapes = self.target_scaler.shapes
        if scale is not None and not 0 <= scale < len(shapes) - 1:
            raise InputError(f"scale must be 0..{len(shapes) - 2}, got {scale}")
        count = shapes[0][0] if scale is None else shapes[scale + 1][1] * shapes[scale + 1][2]
        if not 0 <= token < count:
            raise InputError(f"token must be 0..{count - 1}, got {token}")
        x = torch.from_numpy(self._betas(subject))
        maps = [net.eval().attention_map(x, subject.name, token, scale) for net in self.networks]
        return torch.stack(maps).mean(0).numpy()

    def save(self, folder: str | Path) -> Path:
        """Write ``decoder.safetensors`` and a readable ``decoder.json`` into ``folder``."""
        folder = Path(folder)
        tensors = {
            "target/mean": self.target_scaler.mean,
            "target/scale": self.target_scaler.scale,
        }
        for index, net in enumerate(self.networks):
            tensors |= {f"net{index}/{key}": value for key, value in net.state_dict().items()}
        for name, scaler in self.scalers.items():
            tensors |= {
                f"scaler/{name}/{key}": torch.from_numpy(value) for key, value in vars(scaler).items()
            }
            tensors[f"clusters/{name}"] = torch.from_numpy(self.clusters.labels[name])
        for name, ridge in self.ridges.items():
            arrays = {key: torch.from_numpy(np.asarray(value)) for key, value in vars(ridge).items()}
            tensors |= {f"ridge/{name}/{key}": value for key, value in arrays.items()}
        for name, (_, flat) in self.held.items():
            tensors[f"held/{name}"] = flat
        header = {
            "held": {name: [str(key) for key in stimuli] for name, (stimuli, _) in self.held.items()},
            "format": FORMAT,
            "config": self.config.model_dump(),
            "shapes": [list(shape) for shape in self.target_scaler.shapes],
            "subjects": self.subjects,
            "n_networks": len(self.networks),
            "n_clusters": self.clusters.n_clusters,
            "cluster_method": self.clusters.method,
            "weights": {key: list(value) for key, value in self.weights.items()},
            "report": dict(self.report),
        }
        write_state(folder / "decoder.safetensors", tensors, header)
        write_text(folder / "decoder.json", json.dumps(header, indent=1, sort_keys=True) + "\n")
        return folder / "decoder.safetensors"

    @classmethod
    def load(cls, folder: str | Path) -> BrainDecoder:
        """Read what :meth:`save` wrote (``decoder.safetensors`` alone suffices)."""
        path = Path(folder)
        tensors, header = read_state(path / "decoder.safetensors" if path.suffix != ".safetensors" else path)
        if header.get("format") != FORMAT:
            raise InputError(
                f"{path} has format {header.get('format')}, this version reads {FORMAT}; train again"
            )
        config = parse_config(header["config"], preset=header["config"]["preset"])

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): v.numpy() for k, v in tensors.items() if k.startswith(prefix)}

        names = header["subjects"]
        shapes = [tuple(shape) for shape in header["shapes"]]
        labels = {name: tensors[f"clusters/{name}"].numpy() for name in names}
        networks = []
        for index in range(header["n_networks"]):
            net = build_network(config, labels, header["n_clusters"], shapes)
            prefix = f"net{index}/"
            net.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
            networks.append(net.eval())
        with_ridge = [name for name in names if f"ridge/{name}/basis" in tensors]
        return cls(
            config,
            networks,
            Clusters(labels, header["n_clusters"], header["cluster_method"]),
            {name: VoxelScaler(**part(f"scaler/{name}/")) for name in names},
            {name: Ridge(**part(f"ridge/{name}/")) for name in with_ridge},
            TargetScaler(tensors["target/mean"], tensors["target/scale"], shapes),
            {key: (value[0], value[1]) for key, value in header["weights"].items()},
            header["report"],
            {n: (np.array(ids, str), tensors[f"held/{n}"]) for n, ids in header.get("held", {}).items()},
        )


def build_network(
    config: BrainITConfig, labels: Mapping[str, np.ndarray], n_clusters: int, shapes: list[tuple[int, ...]]
) -> BrainIT:
    """Build an untrained network of the configured sizes."""
    model = config.model
    return brain_it(
        labels,
        n_clusters,
        shapes,
        width=model.width,
        heads=model.heads,
        depth=model.depth,
        mlp_ratio=model.mlp_ratio,
        dropout=model.dropout,
        shared=model.shared,
        init_std=model.init_std,
        voxel_gain=model.voxel_gain,
        query_std=model.query_std,
    )
