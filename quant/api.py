"""The public verbs: plan, quantize_, and what they check before they touch anything."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from quant import recipes, registry
from quant.about import versions
from quant.denoisers.fits import MAX_SEED, check_whole, misfit, model_kind, refuse_autoencoder
from quant.denoisers.inventory import LayerInfo, find_layers, model_bytes
from quant.denoisers.macs import Example, count_macs, input_sizes
from quant.denoisers.roles import refuse_idle, selection
from quant.errors import InputError, MissingDataError
from quant.formats.granularity import weight_layout
from quant.layers.attachments import part_bytes
from quant.layers.attention import install_attention_
from quant.layers.encoded import LayerResult, param_bytes, planned_bytes
from quant.layers.install import install_, refuse_quantized
from quant.layers.native.fits import fit_of
from quant.layers.quantized import weight_sqnr_db
from quant.modes import ordinary_mode
from quant.plans.ledger import LayerRecord, Ledger
from quant.plans.plan import LayerPlan, Plan
from quant.progress import Progress
from quant.recordings.rows import calibration_keys
from quant.recordings.shards import weights_hash
from quant.recordings.trajectories import Trajectories
from quant.training.state import State

SUBCLASS = "a subclass whose forward may not use its weight the plain way"
THREE_DIMENSIONS = "convolution over frames, height and width: as a patch embedding it is small and first"
NOT_REACHED = "the forward does not reach it: there is nothing to calibrate on"
Recipe = str | BaseModel


def plan(
    model: nn.Module,
    recipe: Recipe,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    overrides: dict[str, Any] | None = None,
    example: Example | None = None,
    trajectories: Any = None,
) -> Plan:
    """Say what `quantize_` would do, without doing it.

    Parameters
    ----------
    model : torch.nn.Module
        May lie on the meta device.
    recipe : str or config
        ``PRESET`` (`quant.list_presets()`), ``PRESET+field=value+...``, a preset's YAML file, or a method's
        config object.
    include, exclude : wildcards
        Over layer names; an empty `include` means every layer.
    overrides : dict
        Wildcard to settings of the method's config for those layers, or to "skip". Not those that hold for
        the whole run (`Method.whole_run`).
    example : (args, kwargs), optional
        Inputs for counting multiply-accumulates; made up from the config for diffusers denoisers.
    trajectories : quant.Trajectories, optional
        What `quantize_` will calibrate on: tables that are as long as the recording are counted by it, and
        by an assumed one (which their lines say) without.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        Unknown preset, setting or pattern; settings for layers that are all left alone; model already
        quantized.
    """
    refuse_quantized(model)
    name, chosen, config = recipes.resolve(recipe)
    maths = chosen.load()
    layers = find_layers(model)
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no Linear or Conv2d layer: there is nothing to quantize"
        )
    if layers[0].name == "":
        raise InputError(
            "the model is itself one layer: wrap it, as nn.Sequential(layer), so it can be replaced"
        )
    selected = selection(layers, include, exclude, overrides or {})
    macs, rule = count_macs(model, example)
    sizes = (input_sizes(model, trajectories) if chosen.info.sized_by_recording else None) or {}
    modules: dict[str, Any] = dict(model.named_modules())
    lines: list[LayerPlan] = []
    before, kept = set(), set()  # weights that an earlier layer has: as they were, and left as they are
    for found in layers:
        layer = found._replace(seen=sizes.get(found.name))
        reason, settings = selected[layer.name]
        answer: Any = reason
        if reason is None and chosen.info.needs_calibration and macs.get(layer.name) == 0:
            answer = NOT_REACHED
        if answer is None and not layer.plain:
            answer = THREE_DIMENSIONS if layer.kind == "Conv3d" else SUBCLASS
        if answer is None:
            values = {**config.model_dump(), **settings}
            own = registry.validate(chosen, values) if settings else config
            registry.refuse_own(chosen, config, own, layer.name)
            answer = maths.formats(layer, own)
        line = _line(layer, answer, macs.get(layer.name), settings)
        weight = id(modules[layer.name].weight)
        if weight in before:  # tied: stored once
            line.bytes_before = 0
        if line.skipped and weight in kept:
            line.bytes_after = 0
        before.add(weight)
        kept |= {weight} if line.skipped else set()
        lines.append(line)
    refuse_idle(overrides or {}, {line.name: line.reason if line.skipped else None for line in lines})
    work = sum(line.n_weights for line in lines if not line.skipped)
    seconds, cost = work * 1e-6 * chosen.info.seconds_per_million_weights, None
    if chosen.info.trains:
        cost = maths.training(config)
        seconds += cost.seconds(sum(line.macs or 0 for line in lines))
    return Plan(
        recipe=name,
        method=chosen.name,
        config=config.model_dump(mode="json"),
        model=type(model).__name__,
        layers=lines,
        bytes_other=model_bytes(model) - sum(line.bytes_before for line in lines),
        mac_rule=rule,
        seconds=round(seconds, 3),
        training=cost,
    )


def _line(layer: LayerInfo, answer: Any, macs: int | None, settings: dict[str, Any]) -> LayerPlan:
    common: dict[str, Any] = {"name": layer.name, "kind": layer.kind, "shape": layer.shape, "macs": macs}
    if isinstance(answer, str):
        return LayerPlan(**common, reason=answer, bytes_before=layer.bytes, bytes_after=layer.bytes)
    size = (
        sum(planned_bytes(answer.weight, layer.shape, weight_layout(layer.kind)).values()) + answer.side_bytes
    )
    return LayerPlan(
        **common, weight=answer.weight, activation=answer.activation, reason=_with_rest(layer, answer),
        settings=settings, bytes_before=layer.bytes, bytes_after=size,
    )  # fmt: skip


def _with_rest(layer: LayerInfo, answer: Any) -> str | None:
    """Add to a line's reason that a group is incomplete, if the method did not say so itself."""
    size = answer.weight.granularity.group_size
    rest = layer.shape[1] % size if size else 0
    if not rest or "last group" in (answer.reason or ""):
        return answer.reason
    note = f"last group has {rest} of {size} channels"
    return f"{answer.reason}; {note}" if answer.reason else note


def refuse_nothing(planned: Plan) -> None:
    """Refuse a plan that leaves every layer as it is: its result would be full precision under another name.

    Raises
    ------
    InputError
        With the number of layers and the first reasons.
    """
    if not planned.quantized:
        reasons = sorted({line.reason or "" for line in planned.layers})
        raise InputError(
            f"{planned.recipe} leaves all {len(planned.layers)} layers alone ({'; '.join(reasons[:2])}), so "
            "there is nothing to quantize; change include, exclude or overrides"
        )


def quantize_(
    model: nn.Module,
    recipe: Recipe,
    *,
    trajectories: Any = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    overrides: dict[str, Any] | None = None,
    example: Example | None = None,
    seed: int = 0,
    keep_originals: bool = True,
    progress: Progress | None = None,
    state: str | Path | None = None,
    solved: dict[str, Any] | None = None,
) -> Ledger:
    """Quantize a model in place.

    All or nothing: layers are replaced only after every one of them has been worked out, so a failure or
    Ctrl-C leaves the model as it was.

    Parameters
    ----------
    model, recipe, include, exclude, overrides, example
        As for `plan`.
    trajectories : quant.Trajectories, optional
        Recorded full-precision sampling, for methods that calibrate.
    seed : int
        Fixes everything random in the method.
    keep_originals : bool
        Keep the full-precision layers for `restore_` and `enabled`; False frees their memory.
    progress : callable
        ``progress(done, total, what)``.
    state : folder, optional
        Where a method that trains keeps its checkpoints. Stopped and started again with the same arguments,
        it goes on from the last one and ends at the same bytes; with others it is refused.
    solved : dict, optional
        Kept by the caller over several calls: what a recipe begins from (QVGen's start from SVDQuant) is put
        into it, and not worked out again by a later call that begins from the same.

    Returns
    -------
    Ledger

    Raises
    ------
    InputError
        As for `plan`; a tensor of the model is not finite, or in a dtype that is no plain floating point;
        the model is on the meta device; the trajectories are of another model, damaged or hold NaN; the seed
        is no whole number from 0 to 2^32 - 1.
    MissingDataError
        The method needs trajectories and got none, or none to calibrate on.

    Examples
    --------
    >>> import torch, quant
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 8))
    >>> ledger = quant.quantize_(model, "rtn-w8a8")
    >>> len(ledger.quantized)
    2
    """
    start = time.perf_counter()
    check_whole("seed", seed, 0, MAX_SEED)
    _, chosen, config = recipes.resolve(recipe)
    check(model, recipe, trajectories)
    planned = plan(
        model, recipe, include=include, exclude=exclude, overrides=overrides, example=example,
        trajectories=trajectories,
    )  # fmt: skip
    if chosen.info.needs_calibration and trajectories is None:
        raise MissingDataError(
            f"{planned.recipe} calibrates on recorded trajectories and got none: make them with "
            "quant.record, then pass trajectories=quant.Trajectories.open(path)"
        )
    refuse_nothing(planned)
    context = registry.Context(
        device=str(next(model.parameters()).device), seed=seed, recording=trajectories,
        state=_state(state, model, planned, seed, trajectories), solved=solved,
    )  # fmt: skip
    if progress is not None:
        context.progress = progress
    with torch.random.fork_rng(devices=[]), ordinary_mode():
        torch.manual_seed(seed)
        outcome: registry.Outcome = chosen.load().core(model, planned, config, context)
    results: dict[str, LayerResult] = outcome.layers
    missing = {line.name for line in planned.quantized} ^ set(results)
    if missing:
        raise RuntimeError(
            f"method {chosen.name} broke its plan at {sorted(missing)[0]!r}: plan and results differ"
        )
    modules = dict(model.named_modules())
    records = [_record(line, results.get(line.name), modules[line.name]) for line in planned.layers]
    ledger = Ledger(
        **{**planned.model_dump(exclude={"layers"}), "layers": records}, seed=seed, versions=versions(),
        trajectories=getattr(trajectories, "hash", None), seconds_taken=round(time.perf_counter() - start, 3),
        attention=outcome.attention, notes=outcome.notes, cost=outcome.cost,
    )  # fmt: skip
    install_(model, results, keep_originals, outcome.tensors).ledger = ledger
    install_attention_(model, ledger.attention)
    return ledger


def _state(
    folder: str | Path | None, model: nn.Module, planned: Plan, seed: int, trajectories: Any
) -> State:  # fmt: skip
    if folder is None:
        return State()
    formats = hashlib.sha256(planned.to_json().encode()).hexdigest()
    owner = {
        "config": planned.config, "plan": formats, "seed": seed, "weights": weights_hash(model),
        "recording": getattr(trajectories, "hash", None), "method": planned.method,
    }  # fmt: skip
    return State(folder, owner)


def _record(line: LayerPlan, result: LayerResult | None, module: nn.Module) -> LayerRecord:
    values = {name: getattr(line, name) for name in LayerPlan.model_fields}
    if result is None:
        return LayerRecord(**values)
    side = {
        "activation": sum(param_bytes(result.activation_params).values())
        + (0 if result.timesteps is None else 4 * result.timesteps.numel()),
        "transform": part_bytes(result.transform),
        "branch": part_bytes(result.branch),
    }
    sizes = {**result.weight.bytes(), **{key: size for key, size in side.items() if size}}
    values.update(
        bytes_after=sum(sizes.values()), weight=result.weight.quantizer, activation=result.activation
    )
    original = getattr(module, "weight")  # noqa: B009 - a Tensor attribute mypy cannot see
    op = fit_of(module, result.weight.quantizer, result.activation, result.transform, result.branch).text
    return LayerRecord(
        **values, bytes_by=sizes, weight_sqnr_db=weight_sqnr_db(original, result), notes=result.notes,
        path=f"simulated (reference); from codes: {op}",
    )  # fmt: skip


def check(model: nn.Module, recipe: Recipe, trajectories: Any = None) -> None:
    """Check a model and a recording as `quantize_` does, before any work; changes nothing.

    Raises
    ------
    InputError, MissingDataError
        As for `quantize_`.
    """
    refuse_quantized(model)
    _check_tensors(model)
    needs = recipes.resolve(recipe)[1].info.needs_calibration
    if needs:
        refuse_autoencoder(model)
    if trajectories is not None:
        _check_recording(model, trajectories)
        if needs:
            calibration_keys(trajectories)


def _check_recording(model: nn.Module, trajectories: Any) -> None:
    """Refuse what is no recording, or one of another model."""
    if not isinstance(trajectories, Trajectories):
        raise MissingDataError(
            f"trajectories must be quant.Trajectories, got {type(trajectories).__name__}: open a recording "
            "with quant.Trajectories.open(path)"
        )
    trajectories.verify()
    condition = trajectories.sample(0).get("condition")
    reason = misfit(model, trajectories.settings["shape"], condition, trajectories.class_labels())
    known, kind = trajectories.settings.get("model"), model_kind(model)
    if reason is None and known is not None and known != kind:
        reason = f"it was made with a {known}, this is a {kind}"
    if reason:
        raise InputError(
            f"the recording at {trajectories.path} is of another model: {reason}; record this one with "
            "quant.record"
        )


def _check_tensors(model: nn.Module) -> None:
    """Refuse values that would spoil the result without a word: all tensors count, not only weights."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise InputError(
                f"{name!r} is on the meta device and has no values: load weights first, or quant.load"
            )
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.is_complex() or tensor.element_size() < 2:
            raise InputError(
                f"{name!r} is {str(tensor.dtype).removeprefix('torch.')}: the model is quantized already, or "
                "of no plain floating point; convert it to float16, bfloat16 or float32 first"
            )
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            raise InputError(
                f"{name!r} has {int((~finite).sum())} of {tensor.numel()} values that are NaN or infinite: "
                "repair the checkpoint"
            )
