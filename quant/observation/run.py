"""One pass of the full-precision model over a recording, with every wanted layer looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from quant.about import versions
from quant.denoisers.inventory import find_layers
from quant.denoisers.skips import split_points
from quant.errors import InputError, MissingDataError
from quant.layers.attention import Watcher, find_attention
from quant.layers.install import refuse_quantized
from quant.observation.attention import AttentionObserver
from quant.observation.inputs import InputObserver
from quant.observation.names import nearest
from quant.observation.result import Observation
from quant.observation.stats import OUTLIER_RULE
from quant.observation.weights import weight_stats
from quant.progress import Progress
from quant.recordings.rows import null_of
from quant.recordings.sampling import predict
from quant.recordings.trajectories import Trajectories

Transform = Callable[[Tensor], Tensor]
Transforms = Mapping[str, Transform | Sequence[Transform]]


@torch.no_grad()
def observe(
    model: nn.Module,
    trajectories: Trajectories,
    *,
    layers: str | Iterable[str] = "*",
    transforms: Transforms | None = None,
    samples: int | None = None,
    timesteps: Sequence[float] | None = None,
    subset: str = "calibrate",
    batch_size: int = 8,
    attention: bool = True,
    null_half: bool | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Observation:
    """Look at every layer's input, weight and attention in one pass over recorded trajectories.

    The tensor looked at is the one that is quantized: the input of a Linear or Conv2d. Raw activations are
    never kept; memory does not grow with the number of samples (`InputObserver` says what is kept).
    Timesteps are taken one after the other, in sampling order, so that a channel's quantiles at one timestep
    need a histogram of that timestep only.

    Parameters
    ----------
    model : torch.nn.Module
        A diffusers denoiser in full precision.
    trajectories : Trajectories
        Recorded with it.
    layers : wildcard or several
        Over names of Linear and Conv2d layers, and of attention modules.
    transforms : mapping of wildcard to callable or several
        Tensor to tensor of the same layout, for example `rotations.Rotate`: such a layer's input is
        looked at before and after each. The attribute ``label`` names what it does; if it has
        ``to_weight``, the weight after it is looked at too.
    samples : int, optional
        The first so many of the subset; all by default.
    timesteps : sequence of float, optional
        Recorded values to look at; all by default.
    subset : str or None
        Of the recording; None for all of it.
    batch_size : int
        Samples in memory at a time.
    attention : bool
        Whether probabilities are looked at; attention is then computed by its plain formula.
    null_half : bool, optional
        Look at guidance's other half too, the forward under the recorded null condition. By default as
        calibration does: where the recording has guidance, since sampling runs both.
    device : str or device, optional
        The model is moved there for the pass.
    progress : callable
        ``progress(done, total, what)`` in samples times timesteps.

    Returns
    -------
    Observation

    Raises
    ------
    InputError
        A wildcard matches nothing; a timestep was not recorded; the model is quantized, or does not take the
        recorded inputs; NaN or infinity in an input or a weight.
    MissingDataError
        The subset is empty, or no layer ran.

    Notes
    -----
    A convolution's channels are its input channels; DGQ's released code counts every tap of the kernel as a
    channel of its own.
    """
    refuse_quantized(model)
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    names = select_layers(model, patterns, transforms or {})
    keys = trajectories.keys(subset)[:samples]
    if not keys:
        raise MissingDataError(
            f"the recording at {trajectories.path} has {len(trajectories)} samples and none in {subset!r}: "
            "record more with quant.record"
        )
    # by place: samplers of second order come to a timestep twice
    places = [step for step, t in enumerate(trajectories.timesteps) if _wanted(t, timesteps, trajectories)]
    chosen = tuple(trajectories.timesteps[step] for step in places)
    null = null_of(trajectories) if null_half is None or null_half else None
    if null_half and null is None:
        raise InputError(
            f"null_half: the recording at {trajectories.path} has no null condition; leave it out"
        )
    home = next(model.parameters()).device
    if device is not None:
        model.to(device)
    try:
        inputs = _input_observers(model, names, transforms or {})
        attended = {
            name: AttentionObserver(name, model.get_submodule(name))
            for name in find_attention(model) if attention and _matches(name, patterns)
        }  # fmt: skip
        clock = [0.0]
        with _looking(model, inputs, attended, clock):
            done, total = 0, len(keys) * len(chosen)
            for step, clock[0] in zip(places, chosen, strict=True):
                for start in range(0, len(keys), batch_size):
                    batch = trajectories.read([(key, step) for key in keys[start : start + batch_size]])
                    x, condition = batch.x, batch.condition
                    times = torch.full((len(x),), clock[0])
                    _forward(model, x, times, condition)
                    if null is not None:
                        _forward(model, x, times, null.expand(len(x), *null.shape))
                    done += len(x)
                    if progress is not None:
                        progress(done, total, "observing")
                for group in inputs.values():
                    for observer, _ in group:
                        observer.close(clock[0])
                for look in attended.values():
                    look.close(clock[0])
        modules = dict(model.named_modules())
        weights = {name: weight_stats(name, modules[name].weight) for name in names}
        for name in names:
            for observer, transform in inputs[name]:
                counter: Any = getattr(transform, "to_weight", None)
                if counter is not None:
                    key = f"{name} [{observer.tensor}]"
                    weights[key] = weight_stats(key, counter(modules[name].weight))
    finally:
        if device is not None:
            model.to(home)
    seen = [o.result() for group in inputs.values() for o, _ in group]
    found = {stats.key: stats for stats in seen if stats is not None}
    if not found:
        raise MissingDataError(
            f"none of the {len(names)} layers that match {', '.join(patterns)} ran on the recording"
        )
    settings = {
        "model": type(model).__name__, "layers": list(patterns), "samples": len(keys), "subset": subset,
        "timesteps": list(chosen), "batch_size": batch_size, "attention": attention,
        "null_half": null is not None,
        "transforms": {p: [label_of(t) for t in each(g)] for p, g in (transforms or {}).items()},
        "never_ran": [name for name in names if name not in found],
        "trajectories": trajectories.hash, "recording": trajectories.settings,
        "outlier_rule": OUTLIER_RULE, "versions": versions(),
    }  # fmt: skip
    heads = {name: stats for name, o in attended.items() if (stats := o.result()) is not None}
    return Observation(settings, found, weights, heads)


def each(given: Transform | Sequence[Transform]) -> tuple[Transform, ...]:
    """Return one or several transforms as several."""
    return tuple(given) if isinstance(given, list | tuple) else (given,)  # type: ignore[return-value]


def label_of(transform: Transform) -> str:
    """Return what a transform does, for titles."""
    return str(getattr(transform, "label", None) or type(transform).__name__.lower())


def select_layers(
    model: nn.Module, patterns: Iterable[str], transforms: Transforms | None = None
) -> list[str]:
    """Return the layers that wildcards choose.

    Raises
    ------
    InputError
        A wildcard matches none; the message has the nearest names.
    """
    patterns, transforms = tuple(patterns), transforms or {}
    known = [layer.name for layer in find_layers(model)]
    if not known:
        raise InputError(f"{type(model).__name__} has no Linear or Conv2d layer: there is nothing to look at")
    chosen = [name for name in known if _matches(name, patterns)]
    for pattern, among in [(p, known) for p in patterns] + [(p, chosen) for p in transforms]:
        if not any(fnmatchcase(name, pattern) for name in among):
            close = nearest(pattern, among, 3)
            raise InputError(
                f"pattern {pattern!r} matches none of the {len(among)} Linear and Conv2d layers; nearest "
                f"names: {', '.join(close)}"
            )
    return chosen


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _wanted(timestep: float, wanted: Sequence[float] | None, trajectories: Trajectories) -> bool:
    if wanted is None:
        return True
    missing = [t for t in wanted if all(abs(t - known) > 1e-3 for known in trajectories.timesteps)]
    if missing:
        recorded = ", ".join(f"{t:g}" for t in trajectories.timesteps)
        raise InputError(f"timestep {missing[0]:g} was not recorded; recorded: {recorded}")
    return any(abs(t - timestep) <= 1e-3 for t in wanted)


def _input_observers(
    model: nn.Module, names: list[str], transforms: Transforms
) -> dict[str, list[tuple[InputObserver, Transform | None]]]:
    kinds = {layer.name: layer.kind for layer in find_layers(model)}
    splits = split_points(model)
    found: dict[str, list[tuple[InputObserver, Transform | None]]] = {}
    for name in names:
        found[name] = [(InputObserver(name, kinds[name], split=splits.get(name)), None)]
        for pattern, given in transforms.items():
            for transform in each(given) if fnmatchcase(name, pattern) else ():
                title = f"input after {label_of(transform)}"
                found[name].append((InputObserver(name, kinds[name], title), transform))
    return found


@contextmanager
def _looking(
    model: nn.Module, inputs: Mapping[str, list[tuple[InputObserver, Transform | None]]],
    attended: Mapping[str, AttentionObserver], clock: list[float],
) -> Iterator[None]:  # fmt: skip
    """Put hooks everywhere, and take them away whatever happens."""
    modules = dict(model.named_modules())

    def hook(name: str) -> Callable:
        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = (args[0] if args else kwargs["input"]).detach()
            for observer, transform in inputs[name]:
                observer.update(x if transform is None else transform(x.float()), clock[0])

        return look

    handles: list[Any] = []
    try:
        for name in inputs:
            handles.append(modules[name].register_forward_pre_hook(hook(name), with_kwargs=True))
        handles += [Watcher(observer).attach(modules[name]) for name, observer in attended.items()]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forward(model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensor | None) -> None:
    try:
        predict(model, x, timestep, condition)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        if "out of memory" in str(error):
            raise
        shown = " x ".join(map(str, x.shape[1:]))
        text = " ".join(str(error).split())[:160]
        raise InputError(
            f"{type(model).__name__} does not take the recorded inputs ({shown}): the recording is of "
            f"another model, record it with this one ({text})"
        ) from error
