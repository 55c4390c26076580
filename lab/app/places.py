"""Folders that the app may show: runs below one place, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from time import localtime, strftime

from lab.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STRANGERS: list[str] = []
"""The address that the app listens at where others can reach it; empty on loopback."""
_SIGNS = ("config.yaml", "group.html")
"""A run has its settings; a folder of several runs has one page over them."""
_SAID = re.compile(r"^((?:  )?(?:dataset|subject)|model|recipe):[ \t]+(?!null|\[\])(\S.*)$", re.MULTILINE)
_KINDS = (
    ("group.html", "group"),
    ("bits.csv", "bits"), ("subject.json", "reconstruct"), ("results.csv", "compare"),
    ("observation", "inspect"), ("observation.json", "inspect"), ("ledger.json", "quantize"),
)  # fmt: skip


def local(name: str) -> str:
    """Return the name of a model or folder; refuse a path of this machine where strangers can ask for it.

    Raises
    ------
    InputError
        The app is not bound to loopback, and the name is a path that exists.
    """
    if STRANGERS and name and Path(name).exists():
        raise InputError(f"{name[:60]!r}: folders of this machine are opened on loopback only (--host)")
    return name


def within(home: Path, run: str) -> Path:
    """Return a run's folder.

    Raises
    ------
    InputError
        It lies outside of the place, or is not a run.
    """
    place = home.resolve()
    try:
        folder = (place / run).resolve()
        good = folder.is_relative_to(place) and any((folder / sign).is_file() for sign in _SIGNS)
    except (OSError, ValueError):  # a name too long, or with a null character
        good = False
    if not good:
        raise InputError(f"{run[:60]!r}: not a run below {place}; pick one of the list")
    return folder


def runs(home: Path) -> list[Path]:
    """Folders of runs below a place (three levels), newest first."""
    found = [f for depth in ("*", "*/*", "*/*/*") for sign in _SIGNS for f in home.glob(f"{depth}/{sign}")]
    return list(dict.fromkeys(file.parent for file in sorted(found, key=_stamp, reverse=True)))


def run_rows(home: Path) -> list[list[str]]:
    """Rows of the list of runs: name, kind, state, of what, when."""
    return [
        [str(folder.relative_to(home)), _kind(folder), state(folder), _about(folder),
         strftime("%Y-%m-%d %H:%M", localtime(max(_stamp(folder / sign) for sign in _SIGNS)))]
        for folder in runs(home)
    ]  # fmt: skip


def trained(home: Path) -> list[str]:
    """Names of the runs whose pictures can be decoded again."""
    signs = ("checkpoints/brainit/decoder.safetensors", "steps/predict.json")
    return [str(f.relative_to(home)) for f in runs(home) if any((f / sign).is_file() for sign in signs)]


def state(folder: Path) -> str:
    """Say whether a run is finished, at work, or was stopped."""
    from lab.runs.folder import is_finished
    from lab.runs.lock import FolderLock

    if is_finished(folder) or (folder / "group.html").is_file():
        return "finished"
    if (folder / ".lock").is_file():
        try:
            FolderLock(folder).acquire().release()
        except (InputError, OSError):
            return "running"
    return "finished" if _older_comparison(folder) else "stopped"


def _older_comparison(folder: Path) -> bool:
    """Whether a comparison of an earlier version is whole: it had no mark, its page came last."""
    if not all((folder / name).is_file() for name in ("results.csv", "report.html")):
        return False
    log = folder / "log.jsonl"
    return '"event": "more"' not in (log.read_text(errors="replace") if log.is_file() else "")


def _about(folder: Path) -> str:
    """Say in a few words what a run is of: its model, or dataset and subject, and its recipe."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:  # a group, or deleted meanwhile
        return ""
    found = {name.strip(): value.strip("'\" ") for name, value in _SAID.findall(text)}
    whose = " ".join(found[name] for name in ("dataset", "subject") if name in found)
    return ", ".join(words for words in (whose or found.get("model", ""), found.get("recipe", "")) if words)


def _stamp(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # deleted meanwhile
        return 0.0


def _kind(folder: Path) -> str:
    return next((kind for name, kind in _KINDS if (folder / name).exists()), "run")
