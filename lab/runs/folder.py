"""A run is a folder: settings, cached steps, log, metrics; a killed run goes on, a finished one does nothing.

::

    config.yaml    complete settings with their hash; another setting in the same folder is refused
                   (one that the file lacks, since it came with a later version, has its default there)
    steps/         outputs of finished steps
    checkpoints/   whatever a long step keeps inside itself
    log.jsonl      one event a line
    metrics.json   flat, sorted, rounded; equal for equal settings except for ``seconds_total``
    done.json      written last; a folder that has it, and the files that it names, is finished
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import BaseModel

from lab.errors import InputError
from lab.files import plain, sweep, write_json, write_text
from lab.runs.lock import FolderLock
from lab.runs.metrics import differences, equal_metrics, read_metrics, tidy
from lab.runs.older import complete
from lab.runs.settings import read_settings
from lab.runs.steps import StepCache

__all__ = ["Run", "config_hash", "equal_metrics", "is_finished", "read_metrics"]

TAKEN = "--config takes this file"
NOT_TAKEN = "more than --config takes; the report has the command"
"""Notes for `Run.open`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Run:
    """An open, locked run folder. Make one with `Run.open` and use it as a context manager.

    Attributes
    ----------
    path : Path
        The folder.
    config : dict
        Complete settings.
    hash : str
        First 12 hexadecimal digits of the settings' SHA-256.
    """

    def __init__(self, path: Path, config: dict[str, Any], lock: FolderLock) -> None:
        self.path = path
        self.config = config
        self.hash = config_hash(config)
        self._lock = lock
        self._steps = StepCache(path / "steps")
        self._made: list[Path] = []
        self._opened = time.monotonic()
        self._in_steps = 0.0

    @classmethod
    def open(
        cls, path: Path | str, config: Any, defaults: Mapping[str, Any] | None = None, note: str = TAKEN
    ) -> Run:
        """Open a new folder or one made with the same settings.

        Parameters
        ----------
        path : path
            The run folder; made if missing.
        config : pydantic model or mapping
            Complete settings, JSON-able.
        defaults : mapping, optional
            What a setting that the folder's file lacks has there (`lab.runs.older`); a pydantic model brings
            its own.
        note : str
            First line of ``config.yaml``: what a person can do with the file.

        Returns
        -------
        Run
            Locked; leave it with ``with`` or `close`.

        Raises
        ------
        InputError
            If the folder holds other settings, other files, or is in use by another process.
        """
        path = Path(path)
        settings, defaults = as_settings(config), _defaults(config, defaults)
        cls.check(path, settings, defaults)
        fresh = not (path / "config.yaml").exists()
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path).acquire()
        try:
            sweep(path)
            cls._settle(path / "config.yaml", settings, defaults, note)
        except BaseException:
            lock.release()
            raise
        run = cls(path, settings, lock)
        run._made = [path / "config.yaml", path / "log.jsonl", path / ".lock", *made] if fresh else []
        run.log("open", config=run.hash, version=version("brainit-lab"), finished=run.finished)
        return run

    @staticmethod
    def check(path: Path | str, config: Any, defaults: Mapping[str, Any] | None = None) -> None:
        """Refuse what `open` would refuse of a folder, but for a lock; changes nothing.

        For work that needs no folder and comes before it is claimed.

        Raises
        ------
        InputError
            If the folder holds other settings or other files, or is a file.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; --out wants a folder")
        if (path / "config.yaml").exists():
            Run._same(path / "config.yaml", as_settings(config), _defaults(config, defaults))
        elif path.is_dir():
            strange = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
            if strange:
                raise InputError(
                    f"{path} holds other files ({strange[0]}) and is no run folder; choose a new --out"
                )

    @staticmethod
    def _settle(file: Path, settings: dict[str, Any], defaults: Mapping[str, Any], note: str) -> None:
        import yaml

        if file.exists():
            Run._same(file, settings, defaults)
            return
        head = f"# brainlab settings, hash {config_hash(settings)}; {note}\n"
        write_text(file, head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    @staticmethod
    def _same(file: Path, settings: dict[str, Any], defaults: Mapping[str, Any]) -> None:
        there = read_settings(file)
        check_command(file.parent, there, settings)
        changed = differences(there, settings, defaults)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise InputError(
                f"{file.parent} was made with other settings ({'; '.join(changed[:3])}{more}); "
                "choose another --out"
            )

    @property
    def finished(self) -> bool:
        """Whether this run is complete."""
        return is_finished(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of a finished run."""
        return read_metrics(self.path)

    @property
    def checkpoints(self) -> Path:
        """Folder for what a long step keeps inside itself (made on first use)."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        return folder

    def step(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return a step's output, computing it only where it is not on disk yet.

        The output is read back from disk even right after it was computed, so a run that was killed and one
        that was not see the same values.

        Parameters
        ----------
        name : str
            Name of the step, unique in the run.
        compute : callable
            Returns a mapping of numpy arrays, state dicts of torch tensors, or JSON-able values.

        Returns
        -------
        dict
            The stored output: arrays and state dicts exactly, tuples as lists.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"step name {name!r}: use letters, digits, '.', '_' and '-'")
        stored = self._steps.load(name)
        if stored is not None:
            self.log("step", name=name, cached=True)
            return stored
        began = time.monotonic()
        output = compute()
        seconds = time.monotonic() - began
        self._steps.save(name, output, seconds)
        self._in_steps += seconds
        self.log("step", name=name, cached=False, seconds=round(seconds, 3))
        loaded = self._steps.load(name)
        if loaded is None:
            raise OSError(
                f"step {name!r} could not be read back from {self._steps.folder}; is the disk failing?"
            )
        return loaded

    def log(self, event: str, **fields: Any) -> None:
        """Append one event to log.jsonl."""
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        file = self.path / "log.jsonl"
        line = json.dumps(record, default=plain) + "\n"
        with file.open("ab+") as handle:
            # A killed process may have left half a line; the next event starts on its own.
            if handle.tell() and _last_byte(handle) != b"\n":
                line = "\n" + line
            handle.write(line.encode())

    def write_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Write metrics.json (adding ``seconds_total`` unless given) and return what was written."""
        complete = tidy({"seconds_total": round(self.seconds_total(), 1), **metrics})
        write_json(self.path / "metrics.json", complete)
        return complete

    def seconds_total(self) -> float:
        """Seconds of work in this run over all its sessions; a cached step counts what it took."""
        outside = time.monotonic() - self._opened - self._in_steps
        return self._steps.seconds() + outside

    def finish(self) -> None:
        """Mark the run complete; the last thing a job does."""
        aside = {"done.json", "log.jsonl"}
        files = sorted(p.name for p in self.path.iterdir() if p.is_file() and p.name not in aside)
        result = [name for name in files if not name.startswith(".")]
        about = {"config": self.hash, "version": version("brainit-lab"), "files": result}
        write_json(self.path / "done.json", about)
        self.log("done", seconds_total=round(self.seconds_total(), 1))

    def reopen(self) -> None:
        """Take the mark of completeness away: more is about to be computed in this folder."""
        self.log("more")
        (self.path / "done.json").unlink(missing_ok=True)

    def discard(self, *files: str) -> None:
        """Take back a folder that this process began: nothing is left for the next call to stumble over.

        Does nothing in a folder that was there before. Folders that hold anything else stay.

        Parameters
        ----------
        *files : str
            Names of what the job has written so far.
        """
        if not self._made:
            return
        for path in (*(self.path / name for name in files), *self._made[:3]):
            path.unlink(missing_ok=True)
        for folder in self._made[3:]:
            if any(folder.iterdir()):
                return
            folder.rmdir()

    def close(self) -> None:
        """Give the folder back to other processes."""
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and (self.path / "config.yaml").exists():  # not discarded
                self.log("stopped", error=type(error).__name__, message=" ".join(str(error).split())[:300])
        except OSError:
            pass  # a full disk must not hide the error that it caused
        finally:
            self.close()


def check_command(folder: Path, there: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse a run folder whose settings (``there``) have few of the names that a command's settings have.

    Raises
    ------
    InputError
        It is another command's.
    """
    if 2 * len(there.keys() & set(names)) < min(len(there), len(names)):
        raise InputError(f"{folder} is a folder of another command; choose another --out")


def is_finished(path: Path) -> bool:
    """Whether a run is complete and its results are still there; where some are gone it goes on."""
    file = path / "done.json"
    try:
        names = json.loads(file.read_text(encoding="utf-8")).get("files", [])
    except (OSError, ValueError, AttributeError):
        return False
    return all((path / name).is_file() for name in names)


def as_settings(config: Any) -> dict[str, Any]:
    """Return plain settings (as JSON would give them back) from a pydantic model or a mapping."""
    content = config.model_dump(mode="json") if hasattr(config, "model_dump") else dict(config)
    return json.loads(json.dumps(content, default=plain))


def _defaults(config: Any, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if given is not None:
        return given
    return complete(type(config), {}) if isinstance(config, BaseModel) else {}


def config_hash(config: Any) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of settings, whatever their order."""
    canonical = json.dumps(as_settings(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _last_byte(handle: Any) -> bytes:
    handle.seek(-1, 2)
    return handle.read(1)
