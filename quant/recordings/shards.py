"""The files of a recording: written whole under a temporary name, and checked before they are believed."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.errors import InputError, MissingDataError
from quant.io import hash_file, replacing, write_text

_COUNTS = ("n_steps", "n_samples", "batch_size")


def hash_tensor(tensor: Tensor) -> str:
    """Hash the shape and the values in float32."""
    raw = tensor.detach().float().cpu().contiguous()
    return hashlib.sha256(str(tuple(raw.shape)).encode() + raw.numpy().tobytes()).hexdigest()


def weights_hash(model: nn.Module) -> str:
    """Hash of all parameters and buffers: what one model made is not gone on with by another."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor) and not tensor.is_meta:
            sha.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def hash_digests(digests: list[str]) -> str:
    """Hash of a whole recording from those of its shards."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def begin(folder: Path, settings: dict[str, Any], weights: str) -> tuple[list[str], dict[str, Any]]:
    """Claim a folder for these settings and this model (`weights_hash`), or check that it has the same.

    Returns
    -------
    digests : list of str
        Of the shards that a finished recording has; none otherwise.
    head : dict
        Settings and weights for the manifest; an older one that does not state weights goes on without, since
        nobody knows whose they were.

    Raises
    ------
    InputError
        It holds a recording with other settings, or of other weights.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a recording is a folder: choose another path")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "manifest.json").is_file():
        head = {"settings": settings, "weights": weights}
        write_manifest(folder, head)
        return [], head
    manifest = _read_json(folder)
    known = manifest["settings"]
    asked = {**settings, "scheduler_config": _as_stored(settings["scheduler_config"], known)}
    # recordings that were made before the model's class was stored have none
    changed = sorted(k for k in asked if asked[k] != known.get(k) and (k != "model" or k in known))
    if changed:
        name = changed[0]
        raise InputError(
            f"{folder} holds a recording with {name} = {known.get(name)!r}, asked for {asked[name]!r}: "
            "use another folder, or delete this one"
        )
    if manifest.get("weights", weights) != weights:  # older recordings do not say
        raise InputError(
            f"{folder} holds a recording of a {settings.get('model')} with other weights (or in another "
            "type): use another folder, or delete this one"
        )
    digests = manifest.get("shards")
    head = {"settings": asked, **({"weights": weights} if "weights" in manifest else {})}
    return [str(digest) for digest in digests] if isinstance(digests, list) else [], head


def _as_stored(config: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Leave out lists of a scheduler that a manifest does not name: older recordings kept none."""
    stored = known.get("scheduler_config")
    names = stored if isinstance(stored, dict) else {}
    return {name: value for name, value in config.items() if name in names or not isinstance(value, list)}


def write_manifest(folder: Path, data: dict[str, Any]) -> None:
    """Write ``manifest.json`` at once; one that says the same stays as it is: others may be reading it."""
    file, text = folder / "manifest.json", json.dumps(data, indent=1, sort_keys=True) + "\n"
    if not (file.is_file() and file.read_bytes() == text.encode()):
        write_text(file, text)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a finished recording and check everything that readers rely on.

    Raises
    ------
    MissingDataError
        There is none, or the recording was not finished.
    InputError
        It is damaged.
    """
    if not (folder / "manifest.json").is_file():
        raise MissingDataError(f"no trajectories at {folder}: make them with quant.record")
    manifest = _read_json(folder)
    settings = manifest["settings"]
    if "hash" not in manifest:
        raise MissingDataError(f"the recording at {folder} is not finished: run quant.record again to go on")
    for name in _COUNTS:
        _require(folder, name, settings.get(name), _is_int(settings.get(name), 1), "a whole number above 0")
    shape, guidance = settings.get("shape"), settings.get("guidance")
    sizes = isinstance(shape, list) and bool(shape) and all(_is_int(size, 1) for size in shape)
    _require(folder, "shape", shape, sizes, "a list of sizes")
    number = isinstance(guidance, (int, float)) and not isinstance(guidance, bool) and math.isfinite(guidance)
    _require(folder, "guidance", guidance, number, "a number")
    _require(folder, "seed", settings.get("seed"), _is_int(settings.get("seed")), "a whole number")
    name = settings.get("scheduler")
    _require(folder, "scheduler", name, isinstance(name, str), "a scheduler's name")
    config = settings.get("scheduler_config")
    _require(folder, "scheduler_config", config, isinstance(config, dict), "a scheduler's settings")
    for name in ("conditions", "null_condition", "model", "start"):
        _require(folder, name, settings.get(name), isinstance(settings.get(name), (str, type(None))), "text")
    if guidance != 1.0:
        _require(folder, "null_condition", None, settings.get("null_condition") is not None, "a hash")
    digests, expected = manifest.get("shards"), -(-settings["n_samples"] // settings["batch_size"])
    if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
        raise _damaged(folder, "it has no list of shards")
    if len(digests) != expected:
        raise _damaged(folder, f"it lists {len(digests)} shards, its samples need {expected}")
    if hash_digests(digests) != manifest["hash"]:
        raise _damaged(folder, "its hash is not that of its shards")
    return manifest


def check_shard(shard: Path, digest: str, rows: int, settings: dict[str, Any], steps: int | None) -> None:
    """Check one shard against the manifest; reads it once.

    Parameters
    ----------
    shard : Path
    digest : str
        By the manifest.
    rows : int
        Samples it must hold.
    settings : dict
    steps : int or None
        Timesteps of the recording; None for the first shard, which says them.

    Raises
    ------
    MissingDataError
        It is not there, or torn.
    InputError
        It is not what was recorded, does not fit the manifest, or holds NaN.
    """
    with read_shard(shard) as file:
        if hash_file(shard) != digest:
            raise InputError(
                f"{shard} was changed after it was recorded (its digest is not the manifest's): fetch it "
                "again, or delete the folder and record again"
            )
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        conditions = ["condition"] if settings.get("conditions") else []
        for name in ("x", "timestep", *conditions):
            if name not in shapes:
                raise _damaged(shard.parent, f"{shard.name} has no {name!r}")
        steps = shapes["timestep"][0] if steps is None and len(shapes["timestep"]) == 1 else steps
        wanted = {"x": [rows, steps, *settings["shape"]], "timestep": [steps]}
        for name, shape in wanted.items():
            if shapes[name] != shape:
                what = f"{name!r} of {shard.name} has shape {shapes[name]}, the manifest says {shape}"
                raise _damaged(shard.parent, what)
        if conditions and shapes["condition"][:1] != [rows]:
            raise _damaged(shard.parent, f"{shard.name} has other numbers of conditions than of samples")
        for name in ("x", *conditions):
            whole = file.get_slice(name)
            for row in range(rows):  # one sample at a time: memory stays bounded
                values = whole[row]
                if not bool(torch.isfinite(values).all()):
                    raise InputError(
                        f"{name!r} of sample {row} in {shard} is NaN or infinite: sampling went wrong; "
                        "repair the model or the scheduler, delete the folder, and record again"
                    )


def write_shard(shard: Path, tensors: dict[str, Tensor]) -> None:
    """Write one safetensors file at once; a full disk raises OSError, as any other writer does."""
    try:
        with replacing(shard) as temporary:
            save_file(tensors, temporary)
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(shard)) from None


def complete(shard: Path, digest: str | None) -> bool:
    """Whether a shard is there, readable and as it was recorded; another one is recorded again."""
    if not shard.is_file() or (digest is not None and hash_file(shard) != digest):
        return False
    try:
        with safe_open(shard, framework="pt", device="cpu") as file:
            return "x" in file.keys()
    except SafetensorError:
        return False


def read_shard(shard: Path) -> Any:
    """Open one file for reading."""
    try:
        return safe_open(shard, framework="pt", device="cpu")
    except (SafetensorError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise MissingDataError(
            f"{shard} is missing or damaged ({reason}): record the trajectories again"
        ) from None


def holds(file: Path, name: str, wanted: Tensor) -> bool:
    """Whether a file is there, readable, and holds this tensor under this name."""
    try:
        with read_shard(file) as found:
            return torch.equal(found.get_tensor(name), wanted)
    except (MissingDataError, SafetensorError):
        return False


class OpenShards:
    """Shards that stay open, memory-mapped: the `limit` used last.

    Opening a file costs a hundred times what reading a row of an open one does.
    """

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._files: dict[Path, Any] = {}

    def get(self, shard: Path) -> Any:
        """Return a shard open for reading."""
        file = self._files.pop(shard, None)
        if file is None:
            file = read_shard(shard)
            if len(self._files) >= self.limit:
                del self._files[next(iter(self._files))]  # the one not used for longest
        self._files[shard] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        # a copy, as one in another process, opens its files itself
        return {"limit": self.limit, "_files": {}}


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(folder, f"it is not JSON ({' '.join(str(error).split())})") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("settings"), dict):
        raise _damaged(folder, "it has no settings")
    return manifest


def _is_int(value: Any, low: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (low is None or value >= low)


def _require(folder: Path, name: str, value: Any, good: bool, wanted: str) -> None:
    if not good:
        raise _damaged(folder, f"{name} = {value!r:.60}, not {wanted}")


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(
        f"the manifest of the recording at {folder} is damaged or does not fit its files: {what}; fetch it "
        "again, or delete the folder and record again"
    )
