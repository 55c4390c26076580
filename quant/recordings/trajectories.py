"""Record full-precision sampling once, read it many times: calibration, distillation, evaluation.

A store is a folder: ``manifest.json`` (settings, shard list, hash) and one safetensors file for each batch
of samples, holding the denoiser's inputs ``x`` (samples, steps, ...), the final samples and the conditions;
``null.safetensors`` has guidance's null condition.
Each sample has a key; its starting noise depends on the seed and its key only, so batch size and resuming
change nothing. Keys are split into disjoint subsets once, when the store is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers import families
from quant.denoisers.fits import check_arguments, model_kind
from quant.errors import InputError, MissingDataError
from quant.io import hash_file
from quant.layers.install import check_module
from quant.progress import Progress
from quant.recordings import sampling
from quant.recordings.shards import (
    OpenShards,
    begin,
    check_shard,
    complete,
    hash_digests,
    hash_tensor,
    holds,
    read_manifest,
    read_shard,
    weights_hash,
    write_manifest,
    write_shard,
)  # fmt: skip

SUBSETS = {"calibrate": 0.5, "distill": 0.3, "evaluate": 0.2}
_NULL = "null.safetensors"


@dataclass(frozen=True)
class Batch:
    """Denoiser inputs of some samples at some timesteps.

    Attributes
    ----------
    x : tensor of shape (n, C, H, W)
    timestep : float tensor of shape (n,)
    condition : tensor of shape (n, ...) or None
    key : int64 tensor of shape (n,)
    """

    x: Tensor
    timestep: Tensor
    condition: Tensor | None
    key: Tensor


def _check_kinds(denoiser: object, scheduler: object) -> None:
    check_module(denoiser)
    if isinstance(scheduler, type) or not (
        hasattr(scheduler, "config") and hasattr(scheduler, "set_timesteps")
    ):
        given = scheduler.__name__ if isinstance(scheduler, type) else type(scheduler).__name__
        raise InputError(
            f"scheduler must be an object of diffusers, as DDIMScheduler() or pipe.scheduler, got {given}"
        )


def record(
    denoiser: nn.Module,
    scheduler: Any,
    conditions: Tensor | None,
    path: str | Path,
    *,
    n_steps: int,
    shape: Sequence[int] | None = None,
    n_samples: int | None = None,
    start: Tensor | None = None,
    guidance: float = 1.0,
    null_condition: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Trajectories:
    """Sample with the full-precision model and keep every input it saw.

    Parameters
    ----------
    denoiser : torch.nn.Module
        Of any family that `quant.denoisers.families` knows.
    scheduler : diffusers scheduler
        Its timesteps are reset for every batch.
    conditions : tensor of shape (n, T, D), (n,) for class labels, or None
        One sample for each row; more than tokens is packed by `quant.denoisers.families.pack`.
    path : folder
        Started again with the same settings and weights, recording goes on where it stopped.
    n_steps : int
    shape : (C, H, W), optional
        Of one sample; from the denoiser's config if left out.
    n_samples : int, optional
        Needed without conditions.
    start : tensor of shape (n, C, H, W), optional
        State of each sample at the scheduler's first timestep, as sampling that sets out from a picture has
        it; noise drawn from seed and key if left out.
    guidance : float
        1 turns classifier-free guidance off; otherwise ``null_condition`` of shape (...) is needed. The
        stored inputs are those of one half; both halves see the same x.
    seed : int
    batch_size : int
        Samples in memory at a time; also the size of a shard.
    progress : callable
        ``progress(done, total, what)`` in samples.

    Returns
    -------
    Trajectories

    Raises
    ------
    InputError
        The folder holds a recording with other settings or weights; guidance without a null condition;
        conditions, shape or numbers that do not suit the model; or sampling goes to NaN.
    """
    _check_kinds(denoiser, scheduler)
    check_arguments(
        denoiser, conditions, null_condition, n_steps=n_steps, n_samples=n_samples, guidance=guidance,
        seed=seed, batch_size=batch_size, shape=shape,
    )  # fmt: skip
    count = n_samples if conditions is None else len(conditions)
    assert count is not None  # checked
    sample_shape = tuple(shape) if shape is not None else tuple(families.sample_shape(denoiser) or ())
    settings = {
        "n_steps": n_steps, "n_samples": count, "shape": list(sample_shape), "guidance": guidance,
        "seed": seed, "batch_size": batch_size, "scheduler": type(scheduler).__name__,
        "scheduler_config": sampling.settings_of(scheduler),
        "conditions": None if conditions is None else hash_tensor(conditions),
        "null_condition": None if null_condition is None else hash_tensor(null_condition),
        "model": model_kind(denoiser), "start": None if start is None else hash_tensor(start),
    }  # fmt: skip
    if start is not None and tuple(start.shape) != (count, *sample_shape):
        raise InputError(
            f"start has shape {tuple(start.shape)}; {count} samples need {(count, *sample_shape)}: give one "
            "state for each sample"
        )
    folder = Path(path)
    known, head = begin(folder, json.loads(json.dumps(settings)), weights_hash(denoiser))
    if null_condition is not None:
        null = null_condition.detach().float().cpu().contiguous()
        if not (known and holds(folder / _NULL, "null_condition", null)):
            write_shard(folder / _NULL, {"null_condition": null})
    device = next(denoiser.parameters()).device
    digests: list[str] = []
    for first in range(0, count, batch_size):
        keys = list(range(first, min(first + batch_size, count)))
        shard = folder / f"shard-{first:06d}.safetensors"
        if not complete(shard, known[len(digests)] if len(digests) < len(known) else None):
            rows = None if conditions is None else conditions[keys[0] : keys[-1] + 1].to(device)
            if start is None:
                noise = torch.stack([sampling.start_noise(seed, key, sample_shape) for key in keys])
            else:
                scheduler.set_timesteps(n_steps)  # the sampler multiplies by what this state holds already
                sigma = float(getattr(scheduler, "init_noise_sigma", 1.0))
                noise = start[keys[0] : keys[-1] + 1].detach().float() / sigma
            tensors = _sample(
                denoiser, scheduler, noise.to(device), rows, null_condition, guidance, n_steps, seed, keys
            )
            write_shard(shard, tensors)
        digests.append(hash_file(shard))
        if progress is not None:
            progress(keys[-1] + 1, count, "recording trajectories")
    total = hash_digests(digests)
    write_manifest(folder, {**head, "shards": digests, "hash": total})
    return Trajectories.open(folder)


def _sample(
    denoiser: nn.Module, scheduler: Any, x: Tensor, conditions: Tensor | None, null: Tensor | None,
    guidance: float, n_steps: int, seed: int, keys: list[int],
) -> dict[str, Tensor]:  # fmt: skip
    inputs: list[Tensor] = []

    def keep(step: sampling.Step) -> None:
        if not bool(torch.isfinite(step.seen).all()):
            raise InputError(
                f"sampling gives NaN or infinite values before timestep {step.timestep:g}: repair the "
                "checkpoint, or use the scheduler that the model was trained for"
            )
        inputs.append(step.seen.float().cpu())

    final = sampling.sample(
        denoiser, scheduler, x, conditions, null, steps=n_steps, guidance=guidance, batch=len(keys),
        generator=sampling.generators(seed, keys), apart=True, see=keep,
    )  # fmt: skip
    tensors = {
        "x": torch.stack(inputs, dim=1), "final": final.cpu(), "key": torch.tensor(keys),
        "timestep": torch.as_tensor(scheduler.timesteps).double().cpu(),
    }  # fmt: skip
    if conditions is not None:
        tensors["condition"] = conditions.float().cpu().contiguous()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


class Trajectories:
    """A finished recording on disk; reads rows of memory-mapped shards, never a whole shard.

    A bounded number of shards stays open (`shards.OpenShards`), so that training may read in any order.

    Attributes
    ----------
    path : Path
    settings : dict
    hash : str
        sha256 over all shards.
    timesteps : tuple of float
        In sampling order.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.settings, self.hash = path, manifest["settings"], manifest["hash"]
        self._digests: list[str] = manifest["shards"]
        self._checked: set[int] = set()
        self._shards = OpenShards()
        self.timesteps: tuple[float, ...] = tuple(self._open(0).get_tensor("timestep").tolist())

    @classmethod
    def open(cls, path: str | Path) -> Trajectories:
        """Open a finished recording.

        Raises
        ------
        MissingDataError
            There is none, it was not finished, or a file of it is missing.
        InputError
            It is damaged, or was changed after it was recorded.
        """
        manifest = read_manifest(Path(path))
        if manifest["settings"].get("null_condition") and not (Path(path) / _NULL).is_file():
            # what calibrates under both halves of guidance would do without one, in silence
            raise MissingDataError(
                f"the recording at {path} has lost {_NULL}: fetch it again, or call quant.record with the "
                "same arguments, which writes what is missing"
            )
        return cls(Path(path), manifest)

    def __repr__(self) -> str:
        return f"Trajectories({self.path}: {len(self)} samples, {len(self.timesteps)} timesteps)"

    def __len__(self) -> int:
        return int(self.settings["n_samples"])

    @property
    def null_condition(self) -> Tensor | None:
        """Null condition (T, D) that guidance pushed away from; None where none was given."""
        if self.settings.get("null_condition") is None:
            return None
        with read_shard(self.path / _NULL) as file:
            found = file.get_tensor("null_condition")
        if hash_tensor(found) != self.settings["null_condition"]:
            raise InputError(
                f"{self.path / _NULL} was changed after it was recorded: fetch it again, or delete the "
                "folder and record again"
            )
        return found

    def verify(self) -> None:
        """Check all shards now, rather than each when it is first read; see `shards.check_shard`."""
        for start in range(0, len(self), self.settings["batch_size"]):
            self._open(start)
        _ = self.null_condition  # compared when it is read

    def class_labels(self) -> Tensor | None:
        """Class labels of all samples (n,), or None where conditions are tokens or there are none."""
        if self.sample(0).get("condition", torch.zeros(1)).ndim:
            return None
        return torch.stack([self.sample(key)["condition"] for key in range(len(self))])

    def keys(self, subset: str | None = None) -> list[int]:
        """Sample keys of a subset ("calibrate", "distill", "evaluate"), or all."""
        if subset is None:
            return list(range(len(self)))
        if subset not in SUBSETS:
            raise InputError(f"unknown subset {subset!r}, allowed: {', '.join(SUBSETS)}")
        generator = torch.Generator().manual_seed(sampling.derived_seed(self.settings["seed"], 0, "subsets"))
        order = torch.randperm(len(self), generator=generator).tolist()
        edges, total = {}, 0.0
        for name, share in SUBSETS.items():
            edges[name] = (round(total * len(self)), round((total + share) * len(self)))
            total += share
        low, high = edges[subset]
        return sorted(order[low:high])

    def sample(self, key: int) -> dict[str, Tensor]:
        """Read one sample: `x` (steps, C, H, W), `final`, `timestep`, and `condition` if there is one."""
        size = self.settings["batch_size"]
        file = self._open(key // size * size)
        kept = [name for name in file.keys() if name in ("x", "final", "condition")]
        found = {name: file.get_slice(name)[key % size] for name in kept}
        return {**found, "timestep": torch.tensor(self.timesteps)}

    def batches(
        self,
        subset: str | None = "calibrate",
        *,
        timesteps: Sequence[float] | None = None,
        batch_size: int = 16,
        shuffle: int | None = None,
    ) -> Iterator[Batch]:
        """Iterate over (sample, timestep) pairs.

        Parameters
        ----------
        subset : str or None
        timesteps : sequence of float, optional
            Values to keep; all by default.
        batch_size : int
        shuffle : int, optional
            Seed of a random order; by default samples in key order, steps in sampling order.

        Yields
        ------
        Batch
        """
        steps = range(len(self.timesteps))
        if timesteps is not None:
            missing = [t for t in timesteps if not any(abs(t - known) < 1e-3 for known in self.timesteps)]
            if missing:
                raise InputError(f"timestep {missing[0]:g} was not recorded; recorded: {self.timesteps}")
            steps = [s for s in steps if any(abs(self.timesteps[s] - t) < 1e-3 for t in timesteps)]  # type: ignore
        pairs = [(key, step) for key in self.keys(subset) for step in steps]
        if shuffle is not None:
            generator = torch.Generator().manual_seed(shuffle)
            pairs = [pairs[i] for i in torch.randperm(len(pairs), generator=generator).tolist()]
        for start in range(0, len(pairs), batch_size):
            yield self.read(pairs[start : start + batch_size])

    def read(self, pairs: Sequence[tuple[int, int]]) -> Batch:
        """Read (key, step) pairs, `step` an index into `timesteps`, in the order given; each shard once."""
        size = self.settings["batch_size"]
        places: dict[int, list[int]] = {}
        for place, (key, _) in enumerate(pairs):
            places.setdefault(key // size, []).append(place)
        rows: dict[int, Tensor] = {}
        conditions: dict[int, Tensor] = {}
        for shard, wanted in places.items():
            file = self._open(shard * size)
            x = file.get_tensor("x")  # mapped, not read: only its rows are
            known = file.get_tensor("condition") if "condition" in file.keys() else None
            for place in wanted:
                key, step = pairs[place]
                rows[place] = x[key % size, step]
                if known is not None:
                    conditions[place] = known[key % size]
        order = range(len(pairs))
        return Batch(
            torch.stack([rows[i] for i in order]),
            torch.tensor([self.timesteps[step] for _, step in pairs]),
            torch.stack([conditions[i] for i in order]) if conditions else None,
            torch.tensor([key for key, _ in pairs]),
        )

    def _open(self, start: int) -> Any:
        """Shard that begins with a key; it is checked when it is read for the first time."""
        size, shard = self.settings["batch_size"], self.path / f"shard-{start:06d}.safetensors"
        if start not in self._checked:
            rows = min(size, len(self) - start)
            steps = len(self.timesteps) if self._checked else None
            check_shard(shard, self._digests[start // size], rows, self.settings, steps)
            self._checked.add(start)
        return self._shards.get(shard)
