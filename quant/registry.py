"""Methods, adapters and presets by name. An explicit list, no discovery; listing never imports torch.

A method is data and its maths::

    METHOD = Method("rtn", RtnConfig, MethodInfo(...), core="quant.methods.rtn.core")

in ``quant/methods/rtn/__init__.py``, where the module that `core` names has two functions:

``formats(layer: LayerInfo, config) -> LayerFormat | str``
    the format of one layer, or the reason why it is skipped; pure, so a plan costs nothing.
``core(model, plan, config, context) -> Outcome``
    one result for each planned layer. It may run the model, go block by block, take gradients, even install
    results for a while (`installed`), but leaves the model as it found it: `quantize_` installs
    the outcome, all or none.

A method that trains has a third one, ``training(config) -> quant.plans.cost.TrainingCost``, for the plan.
An adapter adds to a model instead of quantizing it (``ADAPTER = Method(...)`` in
``quant/adapters/NAME/__init__.py``); what its core takes and gives is its business.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quant.errors import InputError, MissingDataError
from quant.io import read_yaml
from quant.progress import Progress, silent

# One folder each under quant/methods. To add a method: its folder, its name here.
NAMES = (
    "rtn",
    "mixdq",
    "eda_dm",
    "svdquant",
    "lowbit_fp",
    "lrq_dit",
    "dgq",
    "efficientdm",
    "quest",
    "binarydm",
    "qvgen",
)
# And under quant/adapters, in the same way.
ADAPTERS: tuple[str, ...] = ("watermark",)


RUN: dict[str, Any] = {"scope": "run"}
"""``json_schema_extra`` of a setting that holds for the whole run; the others may differ by layer."""


class MethodInfo(BaseModel):
    """What forms, tables and the command line say about a method or an adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    paper: str = Field(description="where it was published; empty for baselines")
    year: int
    bits: str = Field(description="weights and activations it is meant for, as 'W4A4'")
    needs_calibration: bool = Field(description="needs recorded trajectories")
    needs_gradients: bool = Field(description="trains something")
    trains: bool = Field(default=False, description="a distillation loop: plans say its steps")
    sized_by_recording: bool = Field(
        default=False, description="stores tables as long as the recording: plans look at `LayerInfo.seen`"
    )
    native: tuple[str, ...] = Field(description="hardware that runs it natively; simulated elsewhere")
    seconds_per_million_weights: float = Field(
        default=0.05, description="for the plan's estimate, one CPU core"
    )


@dataclass(frozen=True)
class Method:
    """A method, or an adapter: what it is called, its settings, what forms say about it, and its maths."""

    name: str
    config: type[BaseModel]
    info: MethodInfo
    core: str
    """Module of the maths; imported when it is used."""

    @property
    def whole_run(self) -> tuple[str, ...]:
        """Settings that no layer can have of its own, as the samples to calibrate on: fields marked `RUN`."""
        fields = self.config.model_fields.items()
        return tuple(name for name, field in fields if field.json_schema_extra == RUN)

    def load(self) -> Any:
        """Import the maths."""
        return import_module(self.core)


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


@dataclass
class Context:
    """What a core may use besides the model.

    Attributes
    ----------
    device : str
        Where the model is.
    seed : int
        Of everything random.
    progress : callable
        ``progress(done, total, what)``.
    recording : quant.Trajectories or None
        Recorded full-precision sampling.
    state : quant.training.state.State or None
        Where work that takes long is kept under keys, and found again after a stop.
    solved : dict or None
        Layers that one recipe has solved and another begins from, by what they are made of; see `quantize_`.
    """

    device: str = "cpu"
    seed: int = 0
    progress: Progress = silent
    recording: Any = None
    state: Any = None
    solved: dict[str, Any] | None = None


@dataclass
class Outcome:
    """What a core hands back; `quantize_` installs all of it or nothing.

    Attributes
    ----------
    layers : dict of str to LayerResult
        One for each planned layer.
    attention : dict of str to AttentionFormat
        What is rounded inside attention modules.
    tensors : dict of str to tensor
        New values of parameters outside the quantized layers, by their names.
    notes : dict
        What the ledger says about the whole run, JSON types only.
    cost : dict
        Of training: ``seconds``, ``peak_bytes``, ``steps``. Apart from the notes, since equal models must
        give equal files.
    """

    layers: dict[str, Any]
    attention: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


def list_methods(pattern: str = "*") -> list[str]:
    """List the names of the methods that match a wildcard."""
    return [name for name in NAMES if fnmatchcase(name, pattern)]


def get_method(name: str) -> Method:
    """Look up a method by name."""
    if name not in NAMES:
        raise InputError(f"unknown method {name!r}, known: {', '.join(NAMES)}")
    found: Method = import_module(f"quant.methods.{name}").METHOD
    return found


def list_adapters(pattern: str = "*") -> list[str]:
    """List the names of the adapters that match a wildcard."""
    return [name for name in ADAPTERS if fnmatchcase(name, pattern)]


def get_adapter(name: str) -> Method:
    """Look up an adapter by name."""
    if name not in ADAPTERS:
        raise InputError(f"unknown adapter {name!r}, known: {', '.join(ADAPTERS) or 'none yet'}")
    found: Method = import_module(f"quant.adapters.{name}").ADAPTER
    return found


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
    if name.endswith((".yaml", ".yml")):
        return _preset_from(Path(name))
    files = _preset_files()
    if name not in files:
        if not name:
            raise InputError("the recipe's name is empty; see: brainlab list presets")
        if name in list_adapters():
            raise InputError(
                f"{name!r} is an adapter, which adds to a model: it is no recipe (brainlab {name})"
            )
        if Path(name).is_dir():
            raise InputError(
                f"{name!r} is a folder; a recipe is a preset's name or its YAML file. A packed model is put "
                "into its own by quant.load, and measured by brainlab compare MODEL --recipes FOLDER"
            )
        if "*" in name or "?" in name:
            raise InputError(_of_pattern(name))
        close = difflib.get_close_matches(name, files, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown preset {name!r}; {hint}see: brainlab list presets")
    found = _shipped(name)
    return replace(found, config=copy.deepcopy(found.config))


def _of_pattern(name: str) -> str:
    """Say what a pattern matches, where one preset is wanted."""
    matches = list_presets(name)
    if not matches:
        return f"no preset matches {name!r}; see: brainlab list presets"
    more = f" and {len(matches) - _LISTED} more" if len(matches) > _LISTED else ""
    return (
        f"{name!r} is a pattern, which brainlab compare and brain bits take; here one preset is wanted: "
        f"{', '.join(matches[:_LISTED])}{more}"
    )


@cache
def _shipped(name: str) -> Preset:
    """Read a preset of the package; lists ask for each of them many times."""
    import yaml

    owner, path = _preset_files()[name]
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Preset(name, owner, data["title"], data["policy"], data.get("config", {}))


def _preset_from(path: Path) -> Preset:
    import yaml

    if not path.is_file():
        raise MissingDataError(f"no preset file {path}: give a file that a method saved, or a preset's name")
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(_no_preset(path, "it is not a text file")) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        raise InputError(_no_preset(path, place + str(getattr(error, "problem", error)))) from None
    if not isinstance(data, dict):
        raise InputError(_no_preset(path, "it does not say 'name: value'"))
    if lacking := [name for name in _PRESET if name not in data]:
        raise InputError(_no_preset(path, f"{' and '.join(lacking)} missing"))
    if more := [str(name) for name in data if name not in (*_PRESET, "config")]:
        raise InputError(
            _no_preset(path, f"{more[0]!r} is none of them; a method's settings stand in config")
        )
    if data["policy"] not in ("paper", "common"):
        raise InputError(f"{path}: policy {data['policy']!r}; allowed: paper, common")
    return Preset(path.stem, data["method"], str(data["title"]), data["policy"], data.get("config") or {})


_LISTED = 6
_PRESET = ("title", "policy", "method")


def _no_preset(path: Path, why: str) -> str:
    return f"{path} is not a preset ({why}): it has title, policy, method, config"


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


def settings_of(chosen: type[BaseModel], config: BaseModel, settings: dict[str, Any]) -> Any:
    """Config of one layer: the recipe's, with what its plan's line overrides."""
    return chosen.model_validate({**config.model_dump(), **settings}) if settings else config


def refuse_own(chosen: Method, config: BaseModel, own: BaseModel, layer: str) -> None:
    """Raise InputError if a layer's own config changes what holds for the whole run; it would be ignored."""
    for name in chosen.whole_run:
        wanted, known = getattr(own, name), getattr(config, name)
        if wanted != known:
            raise InputError(
                f"override of {layer!r}: {name} = {wanted!r:.60}, but {chosen.name} has one {name} for all "
                f"layers, here {known!r}: change it in the recipe"
            )
