"""Opening a model by name: shipped, a diffusers folder, a single safetensors file, or a hub name."""

from __future__ import annotations

import logging
import re
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lab.errors import InputError, MissingDataError, one_line
from lab.models.architecture import model_class, read_json
from lab.models.kinds import SUFFIXES, refuse_adapter_folder, refuse_adapters
from lab.models.single_file import from_file
from lab.models.weights import refuse_quantized_folder, stored_dtype, weight_files

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

    path = _existing(name)
    if path is not None and not path.is_dir():
        if part is not None:
            raise InputError(f"--part {part} picks from a pipeline; {name} is a single file")
        return from_file(path, config)
    if config is not None:
        raise InputError(
            f"--architecture belongs to a single safetensors file, {name!r} is none: leave it away"
        )
    if path is not None:
        return _from_folder(path, part)
    if _HUB_NAME.fullmatch(name):
        return _from_hub(name, part)
    if part is not None:
        raise InputError(f"--part {part} picks from a pipeline; the shipped model {name!r} has no parts")
    return zoo.load(name)


def model_files(name: str, part: str | None = None, config: Path | None = None) -> list[Path] | None:
    """List the files that a model consists of, without reading them; None for a hub name.

    Raises
    ------
    InputError, MissingDataError
        As `open_model`, as far as the files' names tell.
    """
    from lab import zoo

    path = _existing(name)
    if path is None:
        if _HUB_NAME.fullmatch(name):
            return None
        if name not in zoo.names():
            zoo.load(name)  # refuses it, with what there is
        return [zoo.weight_file(name)]
    if path.is_dir():
        folder = _model_folder(path, part)
        return [folder / "config.json", *weight_files(folder)]
    files = [path] if config is None else [path, config / "config.json" if config.is_dir() else config]
    for file in files:
        if not file.is_file():
            what = "such model file:" if file == path else "config at"
            raise MissingDataError(f"no {what} {file}: check the path")
    return files


def _existing(name: str) -> Path | None:
    """Path of a folder or file by its name; None for what is a shipped model or can only be a hub's.

    A shipped name means the shipped model everywhere; a folder of that name is ``./unet-64``.
    """
    from lab import zoo

    if not name.strip():
        raise InputError("the model's name is empty: give a shipped model, a folder, a file or a hub name")
    if name in zoo.names():
        return None
    path = Path(name)
    if path.suffix.lower() in SUFFIXES or path.exists():
        return path
    local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if local or (path.parent != Path() and path.parent.is_dir()):
        raise MissingDataError(f"no model folder or file at {name}: check the path")
    return None


def _from_folder(folder: Path, part: str | None) -> nn.Module:

    folder = _model_folder(folder, part)
    return _read(str(folder), None, local=True, dtype=stored_dtype(weight_files(folder)))


def _model_folder(folder: Path, part: str | None) -> Path:
    """Folder of the model itself: a pipeline's part, or the one given."""
    index = folder / "model_index.json"
    if index.is_file():
        # what a pipeline can do without stands there as [null, null]
        parts = [key for key, value in read_json(index).items() if isinstance(value, list) and any(value)]
        denoisers = [p for p in parts if p.rstrip("_0123456789") in DENOISER_PARTS]
        if part is None and len(denoisers) > 1:  # as Wan 2.2's, one for each half of the timesteps
            raise InputError(
                f"{folder} has {len(denoisers)} denoisers; give --part, one of {', '.join(denoisers)}"
            )
        part = part or (denoisers[0] if denoisers else "unet")
        if part not in parts:
            raise InputError(f"{folder}: no part {part!r}; --part must be one of {', '.join(sorted(parts))}")
        folder = folder / part
    elif part is not None:
        raise InputError(f"{folder} is a single model, not a pipeline; leave --part {part} away")
    if not (folder / "config.json").is_file():
        refuse_adapter_folder(folder)
        refuse_quantized_folder(folder)
        raise InputError(f"{folder}: no config.json; give the folder that save_pretrained wrote")
    model_class(read_json(folder / "config.json").get("_class_name"), folder)
    return folder


def _from_hub(name: str, part: str | None) -> nn.Module:
    parts = (part,) if part else (*DENOISER_PARTS, None)
    problems = []
    local = not hub_answers()
    for candidate in parts:
        try:
            model = _read(name, candidate, local=local)
            return model.to(dtype) if (dtype := _fetched_dtype(name, candidate)) else model
        except InputError as error:
            problems.append(str(error))
    why = "the hub cannot be reached and the cache does not hold it" if local else problems[-1]
    raise MissingDataError(
        f"hub model {name!r} could not be read or fetched ({why}); offline, give a local folder or "
        "a safetensors file"
    )


def hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub can be reached; through a proxy only trying would tell, so the answer is yes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if address.scheme in getproxies():
        return True
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=seconds).close()
    except OSError:
        return False
    return True


def _fetched_dtype(name: str, part: str | None) -> Any:
    """Dtype of what was fetched from the hub, by its files in the cache; None if they are not found."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, f"{part}/config.json" if part else "config.json")
    return stored_dtype(weight_files(Path(config).parent)) if isinstance(config, str) else None


def _read(source: str, part: str | None, local: bool, dtype: Any = None) -> nn.Module:
    """Read through diffusers; safetensors only, nothing left at random, no code of the model's own."""
    import diffusers
    from safetensors import SafetensorError

    where = {"subfolder": part, "local_files_only": local}
    options = {} if dtype is None else {"torch_dtype": dtype}
    loud, hub = diffusers.logging.get_verbosity(), logging.getLogger("huggingface_hub")
    level = hub.level
    diffusers.logging.set_verbosity_error()  # what it would warn of is an error here
    hub.setLevel(logging.ERROR)  # one line a retry says nothing more than the error at the end
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of diffusers, about its own use of the hub's client
            settings = diffusers.UNet2DModel.load_config(source, **where)  # any class reads any config
        kind = model_class(settings.get("_class_name"), source)
        model, info = kind.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **where, **options
        )
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError,
            SafetensorError) as error:  # fmt: skip
        raise InputError(f"{source}: cannot be read as a diffusers model: {one_line(error)[:200]}") from None
    finally:
        diffusers.logging.set_verbosity(loud)
        hub.setLevel(level)
    refuse_adapters(Path(source), info.get("unexpected_keys") or [])
    for what in ("missing_keys", "mismatched_keys"):
        if info.get(what):
            first = next(iter(info[what]))
            raise InputError(
                f"{source}: the weights do not fit the config ({len(info[what])} {what.replace('_', ' ')}, "
                f"the first is {first if isinstance(first, str) else first[0]!r}): fetch the model again"
            )
    return model.eval()
