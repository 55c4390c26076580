"""A process of its own for jobs: what answers a slider never waits for Python's lock behind a sampling loop.

Jobs are sent as plain callables (``partial(registry.run, "quantize", settings)``), one after the other, so
what they loaded is still there for the next one. The process may die (out of memory, a fault in a library):
that is one sentence for whoever waits, and the next job starts another.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from lab.errors import HardwareError, InputError, explain
from lab.jobs.contract import Cancelled, Context
from lab.signals import spared

Job = Callable[[Context], Any]
NICE = 5
"""How far its priority stands back: a person who drags a slider waits for it, a job takes its time."""
GRACE = 0.7
"""Seconds that a job has to stop in good order; then its process ends (every file is whole or absent)."""
HEAVY = ("torch", "diffusers.models", "quant.api", "lab.zoo.sampling")
"""What most jobs need, and what takes seconds to load."""
_LOOK = 0.05


class Worker:
    """Runs jobs in one other process, started when it is first needed.

    Parameters
    ----------
    loads : sequence of str
        Modules that the process loads before the first job comes.
    """

    def __init__(self, loads: Sequence[str] = HEAVY) -> None:
        self._loads = tuple(loads)
        self._turn, self._starting = threading.Lock(), threading.Lock()
        self._process: Any = None
        self._line: Any = None

    def start(self) -> None:
        """Start the process if there is none; it loads the libraries meanwhile."""
        with self._starting:
            if self._process is not None and self._process.is_alive():
                return
            new = multiprocessing.get_context("spawn")  # a fork would inherit other threads' locks
            self._line, theirs = new.Pipe()
            self._process = new.Process(
                target=_serve, args=(theirs, self._loads), daemon=True, name="brainlab jobs"
            )
            with spared():
                self._process.start()
            theirs.close()

    def run(self, job: Job, context: Context) -> Any:
        """Run a job there; its progress and previews arrive here.

        Parameters
        ----------
        job : callable
            ``job(context) -> result``; it and its result can be sent to another process.

        Raises
        ------
        Cancelled
            ``context.stop`` was set.
        HardwareError
            The process died.
        InputError
            What the job raised, as its one sentence.
        """
        with self._turn:
            context.check()
            self.start()
            try:
                self._line.send(job)
                return self._follow(context)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                self._process.join(2)
                raise HardwareError(_death(self._process.exitcode)) from None

    def rest(self) -> bool:
        """End the process if nothing is at work: its memory is free again; say whether that was so."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._end()
        finally:
            self._turn.release()
        return True

    def _follow(self, context: Context) -> Any:
        asked = 0.0
        while True:
            if context.stop.is_set():
                if not asked:
                    asked = time.monotonic()
                    self._line.send(None)
                if time.monotonic() - asked > GRACE:
                    self._end()
                    raise Cancelled("stopped on request")
            if not self._line.poll(_LOOK):
                continue
            kind, what = self._line.recv()
            if kind == "progress":
                context.report(*what)
            elif kind == "preview":
                context.preview(what)
            elif kind == "done":
                return what
            elif kind == "cancelled":
                raise Cancelled("stopped on request")
            else:
                raise what

    def _end(self) -> None:
        with self._starting:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._line.close()
                self._process = None


def _death(code: int | None) -> str:
    why = "most often: out of memory" if code == -signal.SIGKILL else f"exit code {code}"
    return f"the process that did the work has died ({why}); take fewer pictures or layers, or try it again"


def _serve(line: Any, loads: tuple[str, ...]) -> None:
    """Run what comes until the other end is closed."""
    os.nice(NICE)
    jobs: queue.Queue[Job] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(line, jobs, stop), daemon=True).start()
    for name in loads:
        import_module(name)
    mouth = _Mouth(line)
    context = Context(
        report=mouth.report, preview=lambda preview: mouth.send("preview", preview), stop=stop
    )  # fmt: skip
    while True:
        kind, what = _outcome(jobs.get(), context)
        try:
            mouth.send(kind, what)
        except OSError:  # nobody is there
            return
        except Exception as fault:
            mouth.send("fault", InputError(explain(fault).message))


class _Mouth:
    """Says what a job does: progress no faster than a person reads (each word costs the other side).

    Of words that come faster the last one is kept and said as soon as it may be.
    """

    def __init__(self, line: Any) -> None:
        self._line, self._lock = line, threading.Lock()
        self._spoken = 0.0
        self._kept: tuple[Any, ...] | None = None

    def report(self, *words: Any) -> None:
        with self._lock:
            if time.monotonic() - self._spoken > _LOOK:
                self._say(words)
            else:
                if self._kept is None:
                    later = threading.Timer(_LOOK, self._late)
                    later.daemon = True
                    later.start()
                self._kept = words

    def send(self, kind: str, what: Any) -> None:
        """Send anything else, after the words that came before it."""
        with self._lock:
            if self._kept is not None:
                self._say(self._kept)
            self._line.send((kind, what))

    def _late(self) -> None:
        with self._lock:
            if self._kept is not None:
                with suppress(OSError):  # nobody is there; whoever works finds out
                    self._say(self._kept)

    def _say(self, words: tuple[Any, ...]) -> None:
        self._spoken, self._kept = time.monotonic(), None
        self._line.send(("progress", words))


def _listen(line: Any, jobs: queue.Queue[Job], stop: threading.Event) -> None:
    """Hear of jobs, and of whether the one at work is to stop (None); end with the other end."""
    try:
        while True:
            job = line.recv()
            if job is None:
                stop.set()
            else:
                stop.clear()
                jobs.put(job)
    except (EOFError, OSError):
        os._exit(1)


def _outcome(job: Job, context: Context) -> tuple[str, Any]:
    try:
        return "done", job(context)
    except Cancelled:
        return "cancelled", None
    except Exception as fault:
        failure = explain(fault)
        kind = HardwareError if failure.code == HardwareError.exit_code else InputError
        return "fault", kind(failure.message)
