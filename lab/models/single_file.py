"""A denoiser from one safetensors file: architecture from header or config, no tensor unaccounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError, MissingDataError, one_line
from lab.models.architecture import model_class, read_json
from lab.models.kinds import refuse_adapters, refuse_kind
from lab.models.weights import FLOATS, refuse_codes

if TYPE_CHECKING:
    from torch import nn


def from_file(path: Path, config: Path | None) -> nn.Module:
    """Open a single safetensors file in diffusers' own names.

    Parameters
    ----------
    path : Path
    config : Path or None
        ``config.json``, or a folder that holds one. Without it the header's metadata must have ``config``
        (JSON) with ``_class_name``, or ``class`` or ``model_class`` beside it.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        Not safetensors (pickle is never read), quantized already, with an adapter, no plain floating point,
        no architecture, or tensors that do not fit it.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingDataError(f"no such model file: {path}")
    refuse_kind(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
            refuse_codes(path, file.metadata() or {}, dtypes)
            refuse_adapters(path, dtypes)
            kind, settings = _architecture(path, file.metadata() or {}, config)
            model = _blank(path, kind, settings)
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            _check(path, model, shapes)
            _check_kinds(path, model, dtypes)
            model.load_state_dict({name: file.get_tensor(name) for name in shapes}, strict=True, assign=True)
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({one_line(error)})") from None
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def _architecture(path: Path, metadata: dict[str, str], config: Path | None) -> tuple[str, dict[str, Any]]:
    """Class name and settings."""
    if config is not None:
        source = config / "config.json" if config.is_dir() else config
        if not source.is_file():
            raise MissingDataError(f"no config at {source}: give a diffusers config.json")
        settings, where = read_json(source), str(source)
    elif "config" in metadata:
        where = f"the header of {path}"
        try:
            settings = json.loads(metadata["config"])
        except ValueError:
            raise InputError(f"{where} has a config that is not JSON: give --architecture FILE") from None
    else:
        raise InputError(
            f"{path} does not say its architecture: give --architecture with its diffusers config.json"
        )
    if not isinstance(settings, dict):
        raise InputError(f"{where} holds no settings of a model: give --architecture FILE")
    kind = settings.get("_class_name") or metadata.get("class") or metadata.get("model_class")
    if not isinstance(kind, str):
        raise InputError(f"{where} names no class (_class_name): give a diffusers config.json")
    return kind, settings


def _blank(path: Path, kind: str, settings: dict[str, Any]) -> nn.Module:
    """Build the architecture without values."""
    from accelerate import init_empty_weights

    found = model_class(kind, path)
    known = set(found._get_init_keys(found)) - {"self"}
    surplus = sorted(k for k in settings if not k.startswith("_") and k not in known)
    if surplus:
        raise InputError(f"{path}: {kind} has no setting {surplus[0]!r}: another version's config")
    values = {key: value for key, value in settings.items() if not key.startswith("_")}
    try:
        with init_empty_weights():
            return found(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(f"{path}: {kind} cannot be built from its config: {one_line(error)[:200]}") from None


def _check(path: Path, model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    kind = type(model).__name__
    missing, extra = sorted(set(wanted) - set(shapes)), sorted(set(shapes) - set(wanted))
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r}, which the model lacks"
        raise InputError(
            f"{path} does not fit {kind}: it {what} ({len(missing)} missing, {len(extra)} too many); files "
            "of original repositories must be converted to diffusers' names first"
        )
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise InputError(
                f"{path} does not fit {kind}: {name!r} is {shapes[name]}, the config says {shape}"
            )


def _check_kinds(path: Path, model: nn.Module, dtypes: dict[str, str]) -> None:
    """Refuse whole numbers where the model has weights."""
    for name, _ in model.named_parameters():
        if dtypes.get(name, "F32") not in FLOATS:
            raise InputError(
                f"{path}: {name!r} is {dtypes[name]}, not float16, bfloat16 or float32: convert it first"
            )
