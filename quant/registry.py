"""Methods and presets by name. An explicit list, no discovery; listing never imports torch.

A method registers itself in its folder's ``__init__``::

    @method("rtn", config=RtnConfig, info=MethodInfo(...))
    def load():
        from quant.methods.rtn import core
        return core

where the module that `load` returns has two functions:

``formats(layer: LayerInfo, config) -> LayerFormat | str``
    the format of one layer, or the reason why it is skipped; pure, so a plan costs nothing.
``handler(model, plan, config, context) -> dict[str, LayerResult]``
    one result for each planned layer. It may run the model, go block by block, take gradients, even install
    results for a while (`installed`), but leaves the model as it found it: `quantize_` installs
    the results, all or none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quant.errors import InputError, MissingDataError

# One folder each under quant/methods. To add a method: its folder, its name here.
NAMES = ("rtn", "mixdq", "eda_dm", "svdquant", "lowbit_fp", "lrq_dit", "dgq")
_REGISTERED: dict[str, Method] = {}


class MethodInfo(BaseModel):
    """What forms, tables and the command line say about a method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    paper: str = Field(description="where it was published; empty for baselines")
    year: int
    bits: str = Field(description="weights and activations it is meant for, as 'W4A4'")
    needs_calibration: bool = Field(description="needs recorded trajectories")
    needs_gradients: bool = Field(description="trains something")
    sized_by_recording: bool = Field(
        default=False, description="stores tables as long as the recording: plans look at `LayerInfo.seen`"
    )
    whole_run: tuple[str, ...] = Field(
        default=(), description="settings that no layer can have of its own, as the samples to calibrate on"
    )
    native: tuple[str, ...] = Field(description="hardware that runs it natively; simulated elsewhere")
    seconds_per_million_weights: float = Field(
        default=0.05, description="for the plan's estimate, one CPU core"
    )


@dataclass(frozen=True)
class Method:
    """A registered method."""

    name: str
    config: type[BaseModel]
    info: MethodInfo
    load: Callable[[], Any]


@dataclass(frozen=True)
class Preset:
    """A method with a full set of values, from its YAML file."""

    name: str
    method: str
    title: str
    policy: str
    """"paper" or "common"."""
    config: dict[str, Any]


@dataclass(frozen=True)
class LayerFormat:
    """A policy's answer for one layer."""

    weight: Any
    """Quantizer of the weight."""
    activation: Any = None
    """Quantizer of the input, or None for floating point."""
    side_bytes: int = 0
    """Bytes of transform, branch and calibrated activation parameters."""
    reason: str | None = None
    """Why the format differs from the recipe's usual one."""


def _no_progress(done: int, total: int, what: str) -> None:
    """Ignore progress."""


@dataclass
class Context:
    """What a handler may use besides the model."""

    trajectories: Any = None
    seed: int = 0
    device: str = "cpu"
    progress: Callable[[int, int, str], None] = _no_progress
    extra: dict[str, Any] = field(default_factory=dict)
    attention: dict[str, Any] = field(default_factory=dict)
    """Formats (`quant.layers.attention.AttentionFormat`) by attention module, left here by the handler."""


def method(name: str, *, config: type[BaseModel], info: MethodInfo) -> Callable[[Callable[[], Any]], Method]:
    """Register a method; decorates the function that imports its maths."""

    def register(load: Callable[[], Any]) -> Method:
        if name in _REGISTERED:
            raise ValueError(f"method {name!r} is registered twice")
        _REGISTERED[name] = Method(name, config, info, load)
        return _REGISTERED[name]

    return register


def list_methods(pattern: str = "*") -> list[str]:
    """List the names of the methods that match a wildcard."""
    return [name for name in NAMES if fnmatchcase(name, pattern)]


def get_method(name: str) -> Method:
    """Look up a method by name."""
    if name not in NAMES:
        raise InputError(f"unknown method {name!r}, known: {', '.join(NAMES)}")
    import_module(f"quant.methods.{name}")
    return _REGISTERED[name]


def list_presets(pattern: str = "*") -> list[str]:
    """List the names of the presets that match a wildcard."""
    return [name for name in _preset_files() if fnmatchcase(name, pattern)]


@lru_cache(maxsize=1)
def _preset_files() -> dict[str, tuple[str, Path]]:
    folder = Path(__file__).parent / "methods"
    files = [(name, path) for name in NAMES for path in sorted((folder / name / "presets").glob("*.yaml"))]
    return {path.stem: (name, path) for name, path in files}


def get_preset(name: str) -> Preset:
    """Look up a preset by name, or read one from a file (``.yaml`` with a line ``method:``).

    Raises
    ------
    InputError
        There is none of that name, and the message has the closest ones; or the file is not a preset.
    MissingDataError
        There is no such file.
    """
    import yaml

    if name.endswith((".yaml", ".yml")):
        return _preset_from(Path(name))
    files = _preset_files()
    if name not in files:
        close = difflib.get_close_matches(name, files, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown preset {name!r}; {hint}see: brainlab list presets")
    owner, path = files[name]
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Preset(name, owner, data["title"], data["policy"], data.get("config", {}))


def _preset_from(path: Path) -> Preset:
    import yaml

    if not path.is_file():
        raise MissingDataError(f"no preset file {path}: give a file that a method saved, or a preset's name")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Preset(path.stem, data["method"], data["title"], data["policy"], data.get("config", {}))
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a preset ({reason}): it needs title, policy, method, config"
        ) from None


def validate(chosen: Method, values: dict[str, Any]) -> BaseModel:
    """Make a method's config from plain values, with a one-line error."""
    try:
        return chosen.config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "config"
        allowed = ", ".join(chosen.config.model_fields)
        raise InputError(
            f"{chosen.name}: {where} = {first.get('input')!r}: {first['msg'].lower()}; fields: {allowed}"
        ) from None


def refuse_own(chosen: Method, config: BaseModel, own: BaseModel, layer: str) -> None:
    """Raise InputError if a layer's own config changes what holds for the whole run; it would be ignored."""
    for name in chosen.info.whole_run:
        wanted, known = getattr(own, name), getattr(config, name)
        if wanted != known:
            raise InputError(
                f"override of {layer!r}: {name} = {wanted!r:.60}, but {chosen.name} has one {name} for all "
                f"layers, here {known!r}: change it in the recipe"
            )


def list_info(names: Iterable[str] | None = None) -> dict[str, MethodInfo]:
    """Collect metadata by method name."""
    return {name: get_method(name).info for name in (names or NAMES)}
