"""What jobs refuse before any work: a recording of another model, a place that cannot be written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError, MissingDataError
from lab.progress import Progress, silent

if TYPE_CHECKING:
    import quant


def need(*packages: str) -> None:
    """Refuse to begin without packages that are only imported at the end.

    Raises
    ------
    ModuleNotFoundError
        The first that is not installed, by name; the command line says how to get it.
    """
    for name in packages:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def check_recording(model: str, folder: Path | None) -> quant.Trajectories | None:
    """Open a recording given by the user; refuse a missing one, and one of another shipped model.

    Parameters
    ----------
    model : str
        As the user gave it.
    folder : Path, optional
        What `quant.record` wrote.

    Returns
    -------
    quant.Trajectories or None
        None where there is no folder: the model is a shipped denoiser, which records itself.

    Raises
    ------
    InputError
        The recording is of another model or of other weights; without one: an unknown name, or a shipped
        model that does not denoise.
    MissingDataError
        No recording in the folder, or none for a model that is not shipped.
    """
    import quant
    from lab import zoo

    if folder is None:
        if model in zoo.DENOISERS:
            return None
        if not Path(model).exists() and "/" not in model:
            zoo.summary(model)  # refuses an unknown name
            raise InputError(
                f"{model!r} does not denoise; shipped denoisers: {', '.join(zoo.DENOISERS)}; for other "
                "models give --recording FOLDER"
            )
        from lab.models.opening import model_files

        model_files(model)  # refuses what is not a model
        raise MissingDataError(
            f"{model!r} is no shipped denoiser, so there is nothing to look at and calibrate on: "
            f"brainlab record {shlex.quote(model)} --out FOLDER makes that, then give it as the "
            "recording (--recording FOLDER)"
        )
    store = quant.Trajectories.open(folder)
    if model in zoo.DENOISERS:
        from quant.recordings.shards import hash_tensor

        # a denoiser's null tokens were trained with it, so they tell whose recording it is
        if store.settings.get("null_condition") != hash_tensor(zoo.null_tokens(model)):
            raise InputError(
                f"the recording at {folder} was not made with {model}'s null condition: it is of another "
                "model or of other weights; leave --recording out to make one"
            )
    return store


def as_recorded(settings: Any, store: quant.Trajectories | None) -> Any:
    """Return settings with a recording's steps and guidance in place of defaults; given ones stay.

    A model of one's own has the sampling that it was recorded with; 20 steps are those of shipped denoisers.
    """
    if store is None:
        return settings
    made = {"steps": store.settings["n_steps"], "guidance": store.settings["guidance"]}
    given = {name for name in settings.model_fields_set if getattr(settings, name) is not None}
    return settings.model_copy(update={name: made[name] for name in made.keys() - given})


def check_sampling(store: Any, steps: int, guidance: float) -> None:
    """Refuse steps and guidance that differ from a recording's.

    Raises
    ------
    InputError
        They differ: what calibrates would not be what is sampled.
    """
    made = store.settings
    if (steps, guidance) != (made["n_steps"], made["guidance"]):
        raise InputError(
            f"--steps {steps} --guidance {guidance:g}: the recording at {store.path} has {made['n_steps']} "
            f"steps and guidance {made['guidance']:g}; give --steps and --guidance the same"
        )


def check_evaluation(store: Any, n: int) -> int | None:
    """Count the conditions that a recording keeps for evaluation; None where its model takes none.

    Raises
    ------
    InputError
        They are fewer than `n`, the pictures that are asked for.
    """
    if store.settings["conditions"] is None:
        return None
    found, least = len(store.keys("evaluate")), 4
    if found < n:
        way = f"give --n {found} or record more" if found >= least else f"record more: it takes {least}"
        raise InputError(f"--n {n}: the recording's evaluation subset has {found} conditions; {way}")
    return found


def check_folder(out: Path) -> None:
    """Refuse a place where no folder can be made, or that nothing can be written to.

    Raises
    ------
    InputError
        A file is in the way, or what is there is read-only.
    """
    _check_parents(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out wants a folder")


def check_loose_folder(out: Path) -> None:
    """Refuse a place for pictures that do not make a run: another command's run folder as well.

    Raises
    ------
    InputError
        As `check_folder`; or the folder is a run's, among whose files these would stand.
    """
    check_folder(out)
    if (out / "config.yaml").exists():
        raise InputError(f"{out} is a run's folder (it has a config.yaml); choose another --out")


def check_checkpoints(folder: Path | None) -> None:
    """Refuse a place that is no folder of a network's training, nor can become one.

    Raises
    ------
    InputError
        A file is in the way, what is there is read-only, or it is a whole run's folder.
    """
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--checkpoints {folder} is a file; give the folder RUN/checkpoints/brainit")
    if (folder / "config.yaml").exists():
        inside = folder / "checkpoints" / "brainit"
        raise InputError(f"--checkpoints {folder} is a whole run; its training lies in {inside}")
    if not (folder / "decoder.safetensors").is_file():  # else it is only read
        _check_parents(folder, "--checkpoints")


def check_run_folder(out: Path, names: Collection[str] = ()) -> None:
    """Refuse a place where `lab.runs.folder.Run` could not begin, before work that needs no folder.

    Parameters
    ----------
    out : Path
    names : collection of str
        Settings that the command's ``config.yaml`` has, where it is to be told from another command's.

    Raises
    ------
    InputError
        A file is in the way, the place is read-only, or the folder holds other files or another command's.
    """
    from lab.runs.folder import check_command
    from lab.runs.settings import read_settings

    check_folder(out)
    if not out.is_dir():
        return
    if (out / "config.yaml").exists():
        if names:
            check_command(out, read_settings(out / "config.yaml"), names)
        return
    strange = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
    if strange:
        raise InputError(f"{out} holds other files ({strange[0]}) and is no run folder; choose a new --out")


def check_file(out: Path, *endings: str) -> None:
    """Refuse a place where a file of a kind could not be written.

    Parameters
    ----------
    out : Path
    *endings : str
        Such as ".json".

    Raises
    ------
    InputError
        Another ending, a folder, a file in the way, or the place is read-only.
    """
    if out.suffix.lower() not in endings or out.is_dir():
        raise InputError(f"--out {out}: give a file that ends in {' or '.join(endings)}")
    _check_parents(out)


def _check_parents(out: Path, flag: str = "--out") -> None:
    above = next((p for p in (out.absolute(), *out.absolute().parents) if p.exists()), None)
    if above is None:
        return
    if above != out.absolute() and not above.is_dir():
        raise InputError(f"{flag} {out}: {above} is a file, no folder; choose another {flag}")
    if not os.access(above, os.W_OK):
        raise InputError(f"{flag} {out}: {above} cannot be written to (read-only); choose another {flag}")


def open_recording(
    model: str, folder: Path | None = None, device: Any = "cpu", progress: Progress = silent
) -> quant.Trajectories:
    """Open the recording in a folder, or record a shipped denoiser (once; it is kept in the user's cache)."""
    import quant

    if folder is not None:
        return quant.Trajectories.open(folder)
    from lab.zoo.recordings import zoo_recording

    return zoo_recording(model, device=device, progress=progress)
