"""Rows of layer inputs from recorded trajectories, a bounded number at a time.

The full-precision model is run over calibration batches and a hook on each wanted layer keeps a sample of the
rows it sees: tokens of a linear, im2col patches of a convolution. Layers are taken in chunks whose rows fit a
memory budget; the model runs once for each chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import MissingDataError
from quant.families import call
from quant.trajectories import Batch, Trajectories


@dataclass
class LayerRows:
    """What one layer saw.

    Attributes
    ----------
    rows : tensor of shape (n, K)
        A sample of input rows, float32; K is in * kernel * kernel for convolutions (im2col order).
    low, high : tensor of shape (in,)
        Smallest and largest value of each input channel, over everything (not the sample).
    """

    rows: Tensor
    low: Tensor
    high: Tensor


def spread_batches(trajectories: Trajectories, samples: int, steps: int, batch_size: int = 16) -> list[Batch]:
    """Batches of the first `samples` calibration samples at `steps` evenly spread timesteps.

    Raises
    ------
    MissingDataError
        There are no trajectories, or none for calibration.
    """
    if not isinstance(trajectories, Trajectories):
        raise MissingDataError(
            f"calibration needs quant.Trajectories, got {type(trajectories).__name__}: open a recording with "
            "quant.Trajectories.open(path)"
        )
    keys = trajectories.keys("calibrate")[:samples]
    if not keys:
        raise MissingDataError(
            f"the recording at {trajectories.path} has {len(trajectories)} samples and none for calibration: "
            "record more with quant.record"
        )
    known = trajectories.timesteps
    count = min(steps, len(known))
    chosen = sorted({round(i * (len(known) - 1) / max(1, count - 1)) for i in range(count)})
    batches = []
    for start in range(0, len(keys), batch_size):
        part = [trajectories.sample(key) for key in keys[start : start + batch_size]]
        conditions = [s["condition"] for s in part if "condition" in s]
        condition = torch.stack(conditions) if conditions else None
        for step in chosen:
            x = torch.stack([s["x"][step] for s in part])
            time = torch.full((len(part),), known[step])
            batches.append(Batch(x, time, condition, torch.tensor(keys[start : start + batch_size])))
    return batches


@torch.no_grad()
def run_batch(model: nn.Module, batch: Batch) -> Any:
    """Call a denoiser on a recorded batch."""
    return call(model, batch.x, batch.timestep, batch.condition)


def layer_rows(
    model: nn.Module,
    names: Sequence[str],
    batches: Sequence[Batch],
    rows: Callable[[int], int],
    *,
    seed: int = 0,
    budget: int = 1 << 30,
) -> Iterator[tuple[str, LayerRows]]:
    """Yield what each layer saw, in the order of `names`.

    Parameters
    ----------
    model : torch.nn.Module
    names : sequence of str
        Linear and Conv2d layers. Layers of one parent that read one tensor get the same rows.
    batches : sequence of Batch
    rows : callable
        Wanted number of rows for a row length K.
    seed : int
    budget : int
        Bytes of rows held at a time.

    Raises
    ------
    MissingDataError
        A layer never ran on the calibration data.
    """
    modules = dict(model.named_modules())
    chunk: list[str] = []
    held = 0
    for name in names:
        width = row_length(modules[name])
        # siblings stay together, so that those which share an input can be found
        if chunk and held + 4 * rows(width) * width > budget and _parent(name) != _parent(chunk[-1]):
            yield from _collect(modules, model, chunk, batches, rows, seed)
            chunk, held = [], 0
        chunk.append(name)
        held += 4 * rows(width) * width
    if chunk:
        yield from _collect(modules, model, chunk, batches, rows, seed)


def _collect(
    modules: dict[str, nn.Module], model: nn.Module, names: list[str], batches: Sequence[Batch],
    rows: Callable[[int], int], seed: int,
) -> Iterator[tuple[str, LayerRows]]:  # fmt: skip
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    state = {"batch": 0}

    def hook(name: str) -> Callable:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = (args[0] if args else kwargs["input"]).detach().float()
            axis = 1 if isinstance(module, nn.Conv2d) else x.ndim - 1
            dims = [d for d in range(x.ndim) if d != axis]
            now_low, now_high = x.amin(dims), x.amax(dims)
            low[name] = torch.minimum(low[name], now_low) if name in low else now_low
            high[name] = torch.maximum(high[name], now_high) if name in high else now_high
            wanted = -(-rows(row_length(module)) // len(batches))
            key = f"{seed}|{_parent(name)}|{state['batch']}"
            kept[name].append(_sample(module, x, wanted, key))

        return keep

    handles = [modules[name].register_forward_pre_hook(hook(name), with_kwargs=True) for name in names]
    try:
        for state["batch"], batch in enumerate(batches):
            run_batch(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if not kept[name]:
            raise MissingDataError(
                f"layer {name!r} never ran on the calibration data: exclude it, or record trajectories with "
                "the conditions that use it"
            )
        yield name, LayerRows(torch.cat(kept.pop(name)), low[name], high[name])


def _sample(module: nn.Module, x: Tensor, count: int, key: str) -> Tensor:
    """Rows drawn with a generator that depends on seed, parent and batch only."""
    generator = torch.Generator().manual_seed(
        int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")
    )
    flat = x.reshape(-1, x.shape[-1])
    if isinstance(module, nn.Conv2d):
        flat = im2col(module, x).transpose(1, 2).flatten(0, 1)
    index = torch.randperm(len(flat), generator=generator)[:count]
    return flat[index.to(flat.device)].clone()


def im2col(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Patches under a convolution's own kernel, stride, dilation and padding: (B, C k k, positions)."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    return nn.functional.unfold(padded, module.kernel_size, module.dilation, 0, module.stride)  # type: ignore


def row_length(module: nn.Module) -> int:
    """Length of an input row: in, or in * kernel * kernel."""
    if isinstance(module, nn.Conv2d):
        return module.in_channels * module.kernel_size[0] * module.kernel_size[1]
    return int(getattr(module, "in_features"))  # noqa: B009 - mypy sees Tensor | Module


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
