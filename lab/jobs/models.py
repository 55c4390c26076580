"""Opening a model by name: shipped, a diffusers folder on disk, or a hub name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import InputError, MissingDataError, one_line

if TYPE_CHECKING:
    from torch import nn

#: Parts of a diffusers pipeline that denoise, in order of preference.
DENOISER_PARTS = ("transformer", "unet")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def open_model(name: str, part: str | None = None) -> nn.Module:
    """Open a model in evaluation mode on the CPU.

    Parameters
    ----------
    name : str
        A shipped model, a folder with a diffusers model or pipeline, or a hub name (``owner/model``). Only
        safetensors are read, and no code that comes with a model is run.
    part : str, optional
        Part of a pipeline; by default its denoiser.

    Raises
    ------
    InputError
        If the name or folder is no model that can be read.
    MissingDataError
        If a hub model is neither here nor can be fetched.
    """
    from lab import zoo

    if Path(name).is_dir():
        return _from_folder(Path(name), part)
    if _HUB_NAME.fullmatch(name) and not Path(name).exists():
        return _from_hub(name, part)
    if part is not None:
        raise InputError(f"--part {part} picks from a pipeline; the shipped model {name!r} has no parts")
    return zoo.load(name)


def _from_folder(folder: Path, part: str | None) -> nn.Module:
    index = folder / "model_index.json"
    if index.is_file():
        parts = [key for key, value in json.loads(index.read_text()).items() if isinstance(value, list)]
        part = part or next((p for p in DENOISER_PARTS if p in parts), "unet")
        if part not in parts:
            raise InputError(f"{folder}: no part {part!r}; --part must be one of {', '.join(sorted(parts))}")
        folder = folder / part
    elif part is not None:
        raise InputError(f"{folder} is a single model, not a pipeline; leave --part {part} away")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; give the folder that save_pretrained wrote")
    return _read(str(folder), None, local=True)


def _from_hub(name: str, part: str | None) -> nn.Module:
    parts = (part,) if part else (*DENOISER_PARTS, None)
    problems = []
    for candidate in parts:
        try:
            return _read(name, candidate, local=False)
        except InputError as error:
            problems.append(str(error))
    raise MissingDataError(
        f"hub model {name!r} could not be read or fetched ({problems[-1]}); a local folder works too"
    )


def _read(source: str, part: str | None, local: bool) -> nn.Module:
    from diffusers import AutoModel

    try:
        model = AutoModel.from_pretrained(
            source, subfolder=part, local_files_only=local, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise InputError(f"{source}: cannot be read as a diffusers model: {one_line(error)[:200]}") from None
    return model.eval()
