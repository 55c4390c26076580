"""How pages call the house: errors in one sentence, long jobs with progress that can be cancelled."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from lab.errors import explain
from lab.jobs.contract import Cancelled, Context, Preview
from lab.progress import Estimate, duration


def sentence(fault: BaseException) -> str:
    """One sentence for a person, the command line's own: what is wrong and what to do next."""
    return explain(fault).message


def answer(outputs: Sequence[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn every error into the app's own message of one sentence."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*args: Any, **named: Any) -> Any:

            try:
                return function(*args, **named)
            except Exception as fault:
                raise gr.Error(sentence(fault), duration=None, print_exception=False) from None

        return called

    return wrap


def stream(
    prepare: Callable[[], tuple[Callable[[Context], Any], Callable[[Any], Sequence[Any]]]], outputs: int
) -> Iterator[list[Any]]:
    """Run a job for a page: yields (status, pictures on their way, *outputs) and ends with its result.

    Parameters
    ----------
    prepare : callable
        Returns the job, ``job(context) -> result``, and what turns its result into the page's outputs;
        checks settings on the way.
    outputs : int
        How many outputs there are; they are left as they are until the end.
    """
    waiting = [gr.skip()] * outputs
    try:
        job, show = prepare()
    except Exception as fault:
        raise gr.Error(sentence(fault), duration=None, print_exception=False) from None
    yield ["Starting ...", gr.skip(), *waiting]
    for kind, what in Running(job).follow():
        if kind == "progress":
            yield [what, gr.skip(), *waiting]
        elif kind == "preview":
            yield [f"{what.what}: step {what.step} of {what.steps}", list(what.images), *waiting]
        elif kind == "done":
            yield ["Done.", gr.skip(), *show(what)]
        elif kind == "cancelled":
            yield ["Stopped. The same settings go on from here.", gr.skip(), *waiting]
        else:
            raise gr.Error(sentence(what), duration=None, print_exception=False)


class Running:
    """A job on a thread of its own, whose progress and previews a page reads as they come.

    Parameters
    ----------
    job : callable
        ``job(context) -> result``.
    """

    def __init__(self, job: Callable[[Context], Any]) -> None:
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.stop = threading.Event()
        self.context = Context(
            report=lambda *report: self.events.put(("progress", report)),
            preview=lambda preview: self.events.put(("preview", preview)),
            stop=self.stop,
        )
        self._job = job
        self._thread = threading.Thread(target=self._work, daemon=True, name="brainlab job")

    def _work(self) -> None:
        try:
            self.events.put(("done", self._job(self.context)))
        except Cancelled:
            self.events.put(("cancelled", None))
        except BaseException as fault:
            self.events.put(("fault", fault))

    def follow(self, every: float = 0.3) -> Iterator[tuple[str, Any]]:
        """Start; yield ("progress", sentence), ("preview", Preview), then done, cancelled or fault."""
        self._thread.start()
        estimate, said = Estimate(), 0.0
        try:
            while True:
                try:
                    kind, what = self.events.get(timeout=every)
                except queue.Empty:
                    continue
                if kind == "progress":
                    done, total, name = what
                    _, left = estimate.update(done, total)
                    if time.monotonic() - said > every:
                        said = time.monotonic()
                        more = "" if left is None else f", about {duration(left)} left"
                        yield "progress", f"{name} ({done} of {total}{more})"
                elif isinstance(what, Preview) or kind == "preview":
                    yield "preview", what
                else:
                    yield kind, what
                    return
        finally:
            self.stop.set()  # a page that went away lets its job end at the next report
