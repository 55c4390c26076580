"""Opening a model by name: shipped, a diffusers folder, a single safetensors file, or a hub name."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError, MissingDataError, one_line

if TYPE_CHECKING:
    from torch import nn

#: Parts of a diffusers pipeline that denoise, in order of preference.
DENOISER_PARTS = ("transformer", "unet")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def open_model(name: str, part: str | None = None, config: Path | None = None) -> nn.Module:
    """Open a model in evaluation mode on the CPU.

    Parameters
    ----------
    name : str
        A shipped model, a folder with a diffusers model or pipeline, a single safetensors file, or a hub name
        (``owner/model``). Only safetensors are read, and no code that comes with a model is run.
    part : str, optional
        Part of a pipeline; by default its denoiser.
    config : Path, optional
        The ``config.json`` of a single file's architecture, or a folder that holds one; needed where the
        file's header does not say it.

    Raises
    ------
    InputError
        If the name, folder or file is no model that can be read.
    MissingDataError
        If a file is not there, or a hub model is neither here nor can be fetched.
    """
    from lab import zoo
    from lab.jobs.single_file import from_file

    path = Path(name)
    if path.suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl"} or path.is_file():
        if part is not None:
            raise InputError(f"--part {part} picks from a pipeline; {name} is a single file")
        return from_file(path, config)
    if config is not None:
        raise InputError(f"--config belongs to a single safetensors file, {name!r} is none: leave it away")
    if path.is_dir():
        return _from_folder(path, part)
    if _HUB_NAME.fullmatch(name):
        return _from_hub(name, part)
    if part is not None:
        raise InputError(f"--part {part} picks from a pipeline; the shipped model {name!r} has no parts")
    return zoo.load(name)


def _from_folder(folder: Path, part: str | None) -> nn.Module:
    index = folder / "model_index.json"
    if index.is_file():
        parts = [key for key, value in read_json(index).items() if isinstance(value, list)]
        part = part or next((p for p in DENOISER_PARTS if p in parts), "unet")
        if part not in parts:
            raise InputError(f"{folder}: no part {part!r}; --part must be one of {', '.join(sorted(parts))}")
        folder = folder / part
    elif part is not None:
        raise InputError(f"{folder} is a single model, not a pipeline; leave --part {part} away")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; give the folder that save_pretrained wrote")
    return _read(str(folder), None, local=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, with a one-line error."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({one_line(error)}): fetch it again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a {type(data).__name__}, not the settings of a model")
    return data


def _from_hub(name: str, part: str | None) -> nn.Module:
    parts = (part,) if part else (*DENOISER_PARTS, None)
    problems = []
    for candidate in parts:
        try:
            return _read(name, candidate, local=False)
        except InputError as error:
            problems.append(str(error))
    raise MissingDataError(
        f"hub model {name!r} could not be read or fetched ({problems[-1]}); offline, give a local folder or "
        "a safetensors file"
    )


def _read(source: str, part: str | None, local: bool) -> nn.Module:
    """Read through diffusers; safetensors only, nothing left at random, no code of the model's own."""
    import diffusers
    from safetensors import SafetensorError

    where = {"subfolder": part, "local_files_only": local}
    loud = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()  # what it would warn of is an error here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of diffusers, about its own use of the hub's client
            settings = diffusers.UNet2DModel.load_config(source, **where)  # any class reads any config
        kind = model_class(settings.get("_class_name"), source)
        model, info = kind.from_pretrained(source, use_safetensors=True, output_loading_info=True, **where)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError,
            SafetensorError) as error:  # fmt: skip
        raise InputError(f"{source}: cannot be read as a diffusers model: {one_line(error)[:200]}") from None
    finally:
        diffusers.logging.set_verbosity(loud)
    for what in ("missing_keys", "mismatched_keys"):
        if info.get(what):
            first = next(iter(info[what]))
            raise InputError(
                f"{source}: the weights do not fit the config ({len(info[what])} {what.replace('_', ' ')}, "
                f"the first is {first if isinstance(first, str) else first[0]!r}): fetch the model again"
            )
    return model.eval()


def model_class(name: object, source: object) -> Any:
    """Class of diffusers by the name in a config; only diffusers' own models are ever built."""
    import diffusers

    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise InputError(f"{source}: {name!r} is no model class of diffusers {diffusers.__version__}")
    return found
