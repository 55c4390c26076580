"""How pages call the house: errors in one sentence, long jobs with progress that can be cancelled."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from lab.errors import InputError, explain
from lab.jobs.contract import Context
from lab.jobs.running import Running
from lab.jobs.worker import Worker

Prepared = tuple[Callable[[Context], Any], Callable[[Any], Sequence[Any]]]
WORKER = Worker()
"""Where jobs run: sliders do not wait for them."""
STARTING = "Starting ... (the first job loads the libraries: some seconds)"
BRIEF = 8.0
"""Seconds that a message stays which also stands in the page."""
NOTHING = "Nothing is running on this page; what goes on without its page is stopped under Runs."
_MARKS = re.compile(r"([\\`*_~|\[\]])")
_QUOTED = re.compile(r"'([^']{160,})'")
_NOW: dict[tuple[str, str], Running] = {}
_STAYING: dict[str, Running] = {}


def sentence(fault: BaseException) -> str:
    """One sentence for a person, the command line's own; a long text that it quotes loses its middle."""
    return _QUOTED.sub(lambda found: f"'{found[1][:60]} ... {found[1][-20:]}'", explain(fault).message)


def refusal(fault: BaseException, seconds: float | None = None) -> gr.Error:
    """Return the app's own message of one sentence; what it quotes is text, never HTML.

    It stays until it is closed, or so many seconds where the page says the same in its place.
    """
    return gr.Error(escape(sentence(fault), quote=False), duration=seconds, print_exception=False)


def failed(fault: BaseException) -> str:
    """Return the status of a job that failed, as Markdown in which what is quoted is plain text."""
    return "**Not done:** " + _MARKS.sub(r"\\\1", escape(sentence(fault), quote=False))


def answer(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn every error into the app's own message."""

    @functools.wraps(function)
    def called(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except gr.Error:
            raise
        except Exception as fault:
            raise refusal(fault) from None

    return called


def checked(make: Callable[[], Any]) -> Any:
    """Return what ``make`` gives; its error becomes the app's own message."""
    try:
        return make()
    except Exception as fault:
        raise refusal(fault) from None


def stream(
    prepare: Callable[[], Prepared], outputs: int, page: str, request: gr.Request | None, stays: str = ""
) -> Iterator[list[Any]]:
    """Run a job for a page: yields (status, pictures on their way, *outputs) and ends with its result.

    Parameters
    ----------
    prepare : callable
        Returns the job, ``job(context) -> result``, which is sent to another process, and what turns its
        result into the page's outputs; checks settings on the way.
    outputs : int
        How many outputs there are; they are left as they are until the end.
    page : str
        Whose job it is; a session has one per page, and `cancel` stops it.
    request : gradio.Request
        Of the session.
    stays : str
        Run that it writes: it goes on when the page goes away, and is found under Runs.
    """
    waiting, key = [gr.skip()] * outputs, (page, _session(request))
    if key in _NOW and _NOW[key].alive:  # its words stay
        raise refusal(InputError("a job of this page is still at work; cancel it first, or wait"))
    try:
        if stays in _STAYING and _STAYING[stays].alive:
            raise InputError(f"{stays} is being made already, by another session; it is found under Runs")
        job, show = prepare()
        _NOW[key] = running = Running(functools.partial(WORKER.run, job), bool(stays))
        if stays:
            _STAYING[stays] = running
    except Exception as fault:
        yield [failed(fault), gr.skip(), *waiting]  # no "Done." of an earlier one stands beside it
        raise refusal(fault, BRIEF) from None
    yield [STARTING, gr.skip(), *waiting]
    try:
        for kind, what in running.follow():
            if kind == "progress":
                yield [what, gr.skip(), *waiting]
            elif kind == "preview":
                pictures = list(what.images)
                yield [f"{what.what}: step {what.step} of {what.steps}", pictures, *waiting]
            elif kind == "done":
                yield ["Done.", gr.skip(), *show(what)]
            elif kind == "cancelled":
                yield ["Stopped. The same settings go on from here.", gr.skip(), *waiting]
            else:
                yield [failed(what), gr.skip(), *waiting]
                raise refusal(what, BRIEF)
    finally:
        if _NOW.get(key) is running and not running.alive:
            del _NOW[key]


def begin() -> Any:
    """Take a page's words for when there is nothing away, and make room for pictures on their way."""
    return gr.Markdown(visible=False), gr.Gallery([], visible=True)


def reveal(made: Any) -> Any:
    """Return a page's column of results, its words for when there are none, and its pictures on their way."""
    return gr.Column(visible=bool(made)), gr.Markdown(visible=not made), gr.Gallery(visible=False)


def canceller(page: str) -> Callable[[gr.Request], Any]:
    """Return what a page's Cancel button does: stop the job of this session, and of nobody else."""

    def cancel(request: gr.Request) -> Any:
        """Stop this session's job."""
        running = _NOW.get((page, _session(request)))
        if running is None:
            return NOTHING
        running.cancel()
        return (
            gr.skip()
        )  # the job's own stream says that it stopped: an answer of this one might come after it

    return cancel


def progress_of(run: str) -> str:
    """Return what a run that this app makes last said; empty where it makes none of that name."""
    running = _STAYING.get(run)
    return "" if running is None or not running.alive else running.last or "starting"


def at_work() -> list[str]:
    """Names of the runs that this app is making, also before they have a folder."""
    return [name for name, running in _STAYING.items() if running.alive]


def stop_run(run: str) -> str:
    """Stop a run that this app makes, whichever session began it; says what was done."""
    running = _STAYING.get(run)
    if running is None or not running.alive:
        return (
            f"This app makes no run {run[:60]!r} now; one of another process is stopped there, with Ctrl-C."
        )
    running.cancel()
    return "Stopping; the same settings go on from here."


def ended(session: str) -> None:
    """Stop what a session that has gone away was waiting for; what writes a run folder goes on."""
    for (_, whose), running in list(_NOW.items()):
        if whose == session and running not in _STAYING.values():
            running.cancel()


def _session(request: gr.Request | None) -> str:
    return str(getattr(request, "session_hash", "") or "")
