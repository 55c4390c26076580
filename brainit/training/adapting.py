"""A new subject for the network that all share: read in closed form, then voxel embeddings trained if asked.

Embeddings start where tuning puts them. Voxels of the same tuning have the same embedding, whosever they
are, so this is the start from the nearest known voxel (Brain-IT) without its table.

Nothing of the shared network changes. What is kept of a subject is a scaling of its voxels, a linear
read-out, and what its voxels are tuned to (hence their embeddings and clusters): a small file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from brainit.errors import InputError
from brainit.io import read_state, write_state
from brainit.network.shared import SharedNetwork, Voxels
from brainit.progress import Progress, silent
from brainit.subject import Subject
from brainit.training.newcomer import Reading, read
from brainit.training.targets import Prediction, TargetTable
from brainit.voxels.clusters import Clusters
from brainit.voxels.scaling import VoxelScaler

FORMAT = 1
KIND = "adapted subject"
TRIALS_A_MINUTE = 12.5
"""As in NSD: 62 or 63 trials of 4 s in a run of five minutes (Allen et al. 2022, Nature Neuroscience 25)."""
_CHUNK = 64
_PATIENCE = 4


@dataclass(frozen=True)
class AdaptedSubject:
    """One subject as the shared network knows it.

    Parameters
    ----------
    name : str
    network : SharedNetwork
        On the CPU, in evaluation mode.
    scaler : VoxelScaler
    voxels : Voxels
    labels : int64 array of shape (n_voxels,)
        Cluster of every voxel.
    report : mapping
        Trials, weights of the read-outs, seconds.
    held : (str array of shape (n,), float tensor of shape (n, n_tokens, token_width)), optional
        Training stimuli, and what is said of each by a read-out fitted without it. How the network corrects
        it hangs on what voxels are tuned to, which was found from all trials.
    bayes : float tensor of shape (n_voxels, n_components), optional
        Bayes decoding alone, for comparison; not in the file.
    """

    name: str
    network: SharedNetwork
    scaler: VoxelScaler
    voxels: Voxels
    labels: np.ndarray
    report: Mapping[str, Any] = field(default_factory=dict)
    held: tuple[np.ndarray, torch.Tensor] | None = None
    bayes: torch.Tensor | None = None

    @property
    def clusters(self) -> Clusters:
        """Clusters of this subject's voxels, in the form of a decoder's."""
        return Clusters({self.name: self.labels}, self.network.config["n_clusters"], "nearest centre")

    @property
    def subjects(self) -> list[str]:
        """The one subject."""
        return [self.name]

    def _betas(self, subject: Subject) -> torch.Tensor:
        if subject.name != self.name:
            raise InputError(f"this file is of subject {self.name!r}, not {subject.name!r}; adapt that one")
        return torch.from_numpy(self.scaler.apply(subject.betas))

    @torch.no_grad()
    def predict(self, subject: Subject) -> Prediction:
        """Predict tokens for every trial; average repeats before."""
        rows = [self.network(x, self.voxels) for x in self._betas(subject).split(_CHUNK)]
        return Prediction(torch.cat(rows), [])

    @torch.no_grad()
    def predict_bayes(self, subject: Subject) -> Prediction:
        """Predict by Bayes decoding alone, with the prior over tuning that others taught."""
        if self.bayes is None:
            raise InputError("Bayes decoding alone is not kept in the file; adapt the subject again")
        space = self.network.space
        tokens = space.tokens(self._betas(subject) @ self.bayes + self.voxels.offset)
        return Prediction(tokens.unflatten(1, (self.network.config["n_tokens"], -1)), [])

    def attention_map(self, subject: Subject, token: int = 0) -> np.ndarray:
        """Share of every voxel in what the network corrects of one token: float32 (n_trials, n_voxels)."""
        return self.network.attention_map(self._betas(subject), self.voxels, token).numpy()

    def held_out(self, subject: str) -> tuple[np.ndarray, Prediction]:
        """Return training stimuli and what is said of each by a read-out that had not seen it, corrected."""
        if self.held is None or subject != self.name:
            raise InputError(f"no held-out trials of subject {subject!r}; adapt it again")
        return self.held[0], Prediction(self.held[1], [])

    def save(self, folder: str | Path) -> Path:
        """Write ``adapted.safetensors`` in half precision; the shared network is not in it."""
        own = {} if self.voxels.own is None else {"own": self.voxels.own.half()}
        tensors = {
            "mean": torch.from_numpy(self.scaler.mean),
            "scale": torch.from_numpy(self.scaler.scale),
            "evidence": self.voxels.evidence.half(),
            "readout": self.voxels.readout.float(),
            "offset": self.voxels.offset,
            "labels": torch.from_numpy(self.labels.astype(np.int16)),
            **own,
        }
        header: dict[str, Any] = {
            "format": FORMAT, "kind": KIND, "subject": self.name, "network": self.network.config,
            "report": dict(self.report),
        }  # fmt: skip
        if self.held is not None:
            tensors["held"] = self.held[1].half()
            header["held"] = [str(s) for s in self.held[0]]
        path = Path(folder) / "adapted.safetensors"
        write_state(path, tensors, header)
        return path

    @classmethod
    def load(cls, folder: str | Path, network: SharedNetwork) -> AdaptedSubject:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            The file is of another version, or belongs to a network of other sizes.
        """
        path = Path(folder)
        path = path / "adapted.safetensors" if path.suffix != ".safetensors" else path
        tensors, header = read_state(path)
        if header.get("kind") != KIND or header.get("format") != FORMAT:
            raise InputError(
                f"{path} is {header.get('kind', 'a file')} of format {header.get('format')}, this version "
                f"reads {KIND} of format {FORMAT}; adapt again"
            )
        if header["network"] != network.config:
            raise InputError(f"{path} belongs to a network of other sizes; adapt the subject to this one")
        labels = tensors["labels"].long()
        voxels = Voxels.of(
            tensors["evidence"].float(), labels, network.config["n_clusters"], tensors["readout"],
            tensors["offset"],
        )  # fmt: skip
        if "own" in tensors:
            voxels = replace(voxels, own=tensors["own"].float())
        held = (np.array(header["held"], str), tensors["held"].float()) if "held" in tensors else None
        scaler = VoxelScaler(tensors["mean"].numpy(), tensors["scale"].numpy())
        return cls(header["subject"], network, scaler, voxels, labels.numpy(), header["report"], held)


def adapt(
    network: SharedNetwork,
    subject: Subject,
    table: TargetTable,
    *,
    epochs: int = 0,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Progress = silent,
) -> AdaptedSubject:
    """Adapt one subject by its training trials; repeats of a stimulus are averaged.

    Parameters
    ----------
    network : SharedNetwork
        Left as it is.
    subject : Subject
    table : TargetTable
        Tokens of every training stimulus.
    epochs : int
        Passes over the trials in which voxel embeddings are trained, most; 0 leaves them as tuning says.
        A fifth of the trials is left out and decides when to stop, or that nothing was gained.

    Raises
    ------
    InputError
        Tokens of another form than the network's, or too few trials.
    """
    wanted = (network.config["n_tokens"], network.config["token_width"])
    if tuple(table.targets.shapes[0]) != wanted:
        raise InputError(
            f"the network predicts tokens of shape {wanted}, the stimuli's have {table.targets.shapes[0]}; "
            "encode them with the encoder that the network was trained for"
        )
    own = subject.part("train").mean_over_repeats()
    scaler = VoxelScaler.fit(own.betas)
    betas = torch.from_numpy(scaler.apply(own.betas))
    goals = table.targets.tokens[torch.from_numpy(table.rows(own.stimulus_id))].flatten(1).float()
    progress(0, 1 + epochs, f"reading {subject.name}: {len(betas)} trials, {betas.shape[1]} voxels")
    network = network.to("cpu").eval()
    reading = read(betas, goals, network.space, network.prior, seed)
    labels = network.assign(reading.tuning)
    voxels = Voxels.of(
        reading.tuning.evidence, labels, network.config["n_clusters"], reading.readout, reading.offset
    )
    report: dict[str, Any] = {
        "n_trials": len(betas),
        "read_out_weights": {k: [round(w, 3) for w in pair] for k, pair in reading.weights.items()},
    }
    if epochs:
        voxels, report["embeddings"] = train_embeddings(
            network, voxels, reading, betas, goals, epochs, lr, seed, progress
        )
    with torch.no_grad():
        base = network.space.tokens(reading.left_out).unflatten(1, wanted)
        corrected = [
            network(x, voxels, b) for x, b in zip(betas.split(_CHUNK), base.split(_CHUNK), strict=True)
        ]
    held = (np.asarray(own.stimulus_id, str), torch.cat(corrected))
    progress(1 + epochs, 1 + epochs, f"{subject.name} is adapted")
    return AdaptedSubject(subject.name, network, scaler, voxels, labels.numpy(), report, held, reading.bayes)


def train_embeddings(
    network: SharedNetwork,
    voxels: Voxels,
    reading: Reading,
    betas: torch.Tensor,
    goals: torch.Tensor,
    epochs: int,
    lr: float,
    seed: int,
    progress: Progress,
) -> tuple[Voxels, dict[str, Any]]:
    """Train what is added to the voxel embeddings on one subject's trials; everything else is frozen.

    The read-out's tokens of a trial are those of a fit without it. Returns the voxels with the best
    embeddings by the trials left out, and errors before and after.
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(betas), generator=draw)
    out, inside = order[: max(2, len(order) // 5)], order[max(2, len(order) // 5) :]
    base = network.space.tokens(reading.left_out).unflatten(1, (network.config["n_tokens"], -1))
    width = network.config["width"]
    start = torch.zeros(len(voxels.evidence), width).to(betas) if voxels.own is None else voxels.own
    own = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([own], lr=lr, weight_decay=0.0)
    frozen = [p for p in network.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        found = network(betas[rows], replace(voxels, own=own), base[rows])
        return F.mse_loss(found.flatten(1), goals[rows])

    @torch.no_grad()
    def left_out() -> float:
        return float(torch.stack([loss(rows) * len(rows) for rows in out.split(_CHUNK)]).sum() / len(out))

    before = best = left_out()
    kept, bad, done = start, 0, 0
    try:
        for epoch in range(epochs):
            progress(1 + epoch, 1 + epochs, f"training voxel embeddings, left-out error {best:.4f}")
            for rows in inside[torch.randperm(len(inside), generator=draw)].split(_CHUNK):
                optimizer.zero_grad(set_to_none=True)
                loss(rows).backward()
                optimizer.step()
            done, error = epoch + 1, left_out()
            if error < best:
                best, kept, bad = error, own.detach().clone(), 0
            else:
                bad += 1
            if bad >= _PATIENCE:
                break
    finally:
        for p in frozen:
            p.requires_grad_(True)
    facts = {"epochs": done, "left_out_error_before": round(before, 5), "left_out_error": round(best, 5)}
    return replace(voxels, own=kept), facts
