"""Run the full-precision model over a recording while somebody looks at its layers' inputs.

`replay` feeds everything through once; `watch` shows every input of some layers as it goes by; `layer_rows`
keeps a bounded sample of input rows for each layer. Where the recording was sampled with guidance, inputs
are seen under the recorded condition and under the null condition, since sampling runs both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.families import call
from quant.errors import InputError, MissingDataError
from quant.progress import Progress
from quant.recordings.trajectories import Batch, Trajectories

See = Callable[[str, Tensor, float], None]

_WIDER = {"float16": "bfloat16 or float32", "bfloat16": "float32"}


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


def calibration_keys(trajectories: Any, samples: int | None = None, subset: str = "calibrate") -> list[int]:
    """Keys of the first `samples` samples of a subset.

    Raises
    ------
    MissingDataError
        There are no trajectories, or none in the subset.
    """
    if not isinstance(trajectories, Trajectories):
        raise MissingDataError(
            f"calibration needs quant.Trajectories, got {type(trajectories).__name__}: open a recording with "
            "quant.Trajectories.open(path)"
        )
    keys = trajectories.keys(subset)[:samples]
    if not keys:
        raise MissingDataError(
            f"the recording at {trajectories.path} has {len(trajectories)} samples and none in {subset!r}: "
            "record more with quant.record"
        )
    return keys


def null_of(trajectories: Trajectories) -> Tensor | None:
    """Return the null condition if the recording was sampled with guidance and kept it."""
    return trajectories.null_condition if trajectories.settings["guidance"] != 1.0 else None


def sample_batches(
    trajectories: Trajectories, keys: Sequence[int], steps: Sequence[int] | None = None, size: int = 16
) -> Iterator[Batch]:
    """Batches of one timestep each, in sampling order; with guidance each is followed by its null twin."""
    known, null = trajectories.timesteps, null_of(trajectories)
    for start in range(0, len(keys), size):
        some = [trajectories.sample(key) for key in keys[start : start + size]]
        conditions = [s["condition"] for s in some if "condition" in s]
        condition = torch.stack(conditions) if conditions else None
        index = torch.tensor(keys[start : start + size])
        for step in range(len(known)) if steps is None else steps:
            x, time = torch.stack([s["x"][step] for s in some]), torch.full((len(some),), known[step])
            yield Batch(x, time, condition, index)
            if condition is not None and null is not None:
                yield Batch(x, time, null.to(condition).expand_as(condition), index)


def spread_batches(trajectories: Trajectories, samples: int, steps: int, batch_size: int = 16) -> list[Batch]:
    """Batches of the first `samples` calibration samples at `steps` evenly spread timesteps.

    Raises
    ------
    MissingDataError
        There are no trajectories, or none for calibration.
    """
    keys = calibration_keys(trajectories, samples)
    last = len(trajectories.timesteps) - 1
    count = min(steps, last + 1)
    chosen = sorted({round(i * last / max(1, count - 1)) for i in range(count)})
    return list(sample_batches(trajectories, keys, chosen, batch_size))


@torch.no_grad()
def run_batch(model: nn.Module, batch: Batch) -> Tensor:
    """Call a denoiser on a recorded batch.

    Raises
    ------
    InputError
        The prediction is NaN or infinite: ranges of its layers would be, too.
    """
    out = call(model, batch.x, batch.timestep, batch.condition)
    if not bool(torch.isfinite(out).all()):
        kind = str(out.dtype).removeprefix("torch.")
        raise InputError(
            f"the model's prediction at timestep {float(batch.timestep[0]):g} of the recording is NaN or "
            f"infinite in {kind}: it overflows; quantize it in {_WIDER.get(kind, 'a wider type')}"
        )
    return out


@torch.no_grad()
def replay(
    model: nn.Module,
    trajectories: Trajectories,
    *,
    subset: str = "calibrate",
    samples: int | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
    step: Callable[[float], None] | None = None,
    done: int = 0,
) -> None:
    """Feed the recorded inputs through `model`, one timestep a call, in sampling order.

    Parameters
    ----------
    model : torch.nn.Module
        In the mode and on the device it is in.
    trajectories : Trajectories
    subset : str
    samples : int, optional
        The first so many of the subset; all by default.
    batch_size : int
        Samples a call.
    progress : callable
        In samples, after each batch of them has gone through all timesteps.
    step : callable
        Called with the timestep before each forward.
    done : int
        So many samples are left out: somebody has seen them before a stop.

    Raises
    ------
    MissingDataError
        The subset has no samples.
    InputError
        A prediction is NaN or infinite.
    """
    keys = calibration_keys(trajectories, samples, subset)
    for start in range(done, len(keys), batch_size):
        some = keys[start : start + batch_size]
        for batch in sample_batches(trajectories, some, size=batch_size):
            if step is not None:
                step(float(batch.timestep[0]))
            run_batch(model, batch)
        if progress is not None:
            progress(start + len(some), len(keys), "calibrating")


def watch(
    model: nn.Module, trajectories: Trajectories, names: Iterable[str], see: See, **options: Any
) -> None:
    """`replay` with ``see(name, input, timestep)`` called for every input of the layers `names`.

    What is kept of an input is up to `see`; nothing is kept here. Hooks are removed whatever happens.
    """
    now = [0.0]
    with _hooked(model, list(names), lambda name, module, x: see(name, x, now[0])):
        replay(model, trajectories, step=lambda value: now.__setitem__(0, value), **options)


def layer_rows(
    model: nn.Module,
    names: Sequence[str],
    batches: Sequence[Batch],
    rows: Callable[[str, int], int],
    *,
    seed: int = 0,
    budget: int = 1 << 30,
) -> Iterator[tuple[str, LayerRows]]:
    """Yield what each layer saw, in the order of `names`.

    Layers are taken in chunks whose rows fit the budget; the model runs once for each chunk.

    Parameters
    ----------
    model : torch.nn.Module
    names : sequence of str
        Linear and Conv2d layers. Layers of one parent that read one tensor get the same rows.
    batches : sequence of Batch
    rows : callable
        Wanted number of rows of a layer, by its name and row length K.
    seed : int
    budget : int
        Bytes of rows held at a time.

    Raises
    ------
    MissingDataError
        A layer never ran on the calibration data.
    InputError
        A prediction is NaN or infinite.
    """
    modules = dict(model.named_modules())
    chunk: list[str] = []
    held = 0
    for name in names:
        width = row_length(modules[name])
        # siblings stay together, so that those which share an input can be found
        if chunk and held + 4 * rows(name, width) * width > budget and _parent(name) != _parent(chunk[-1]):
            yield from _collect(model, chunk, batches, rows, seed)
            chunk, held = [], 0
        chunk.append(name)
        held += 4 * rows(name, width) * width
    if chunk:
        yield from _collect(model, chunk, batches, rows, seed)


def _collect(
    model: nn.Module, names: list[str], batches: Sequence[Batch], rows: Callable[[str, int], int], seed: int
) -> Iterator[tuple[str, LayerRows]]:
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    now = 0

    def keep(name: str, module: nn.Module, x: Tensor) -> None:
        x = x.float()
        axis = 1 if isinstance(module, nn.Conv2d) else x.ndim - 1
        dims = [d for d in range(x.ndim) if d != axis]
        now_low, now_high = x.amin(dims), x.amax(dims)
        low[name] = torch.minimum(low[name], now_low) if name in low else now_low
        high[name] = torch.maximum(high[name], now_high) if name in high else now_high
        wanted = -(-rows(name, row_length(module)) // len(batches))
        kept[name].append(_sample(module, x, wanted, f"{seed}|{_parent(name)}|{now}"))

    with _hooked(model, names, keep):
        for now, batch in enumerate(batches):  # noqa: B007 - the hook reads it
            run_batch(model, batch)
    for name in names:
        if not kept[name]:
            raise MissingDataError(
                f"layer {name!r} never ran on the calibration data: exclude it, or record trajectories with "
                "the conditions that use it"
            )
        yield name, LayerRows(torch.cat(kept.pop(name)), low[name], high[name])


@contextmanager
def _hooked(
    model: nn.Module, names: Sequence[str], see: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call ``see(name, module, input)`` before every forward of some layers; hooks go whatever happens."""
    modules = dict(model.named_modules())

    def hook(name: str) -> Callable:
        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            see(name, module, (args[0] if args else kwargs["input"]).detach())

        return look

    handles = [modules[name].register_forward_pre_hook(hook(name), with_kwargs=True) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
