"""Jobs in a process of their own: results, words on the way, faults, stopping, and a process that dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from lab.errors import HardwareError, InputError
from lab.jobs import registry
from lab.jobs.contract import Cancelled, Context, Preview
from lab.jobs.worker import GRACE, Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker(loads=())  # three processes are started, and none needs torch
    made.start()
    yield made
    made.rest()


def _watched(context: Context) -> int:
    context.progress(1, 4, "looking")
    context.preview(Preview("step", 1, 2, np.zeros((1, 2, 2, 3), np.uint8)))
    return os.getpid()


def _hasty(context: Context) -> None:
    for done in range(20):
        context.progress(done, 20, "counting")
    time.sleep(0.3)
    context.progress(20, 20, "counting")


def _patient(context: Context) -> None:
    while True:
        context.progress(1, 10, "drawing")
        time.sleep(0.02)


def _deaf(context: Context) -> None:
    context.progress(0, 1, "a long call into a library")
    time.sleep(60)


def _dying(context: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _broken(context: Context) -> None:
    raise MemoryError("all of it")


def _unsendable(context: Context) -> Any:
    return threading.Lock()


def test_of_words_that_come_fast_the_last_ones_get_through(worker: Worker) -> None:
    words: list[int] = []
    worker.run(_hasty, Context(report=lambda done, total, what: words.append(done)))
    assert words[-2:] == [19, 20] and len(words) < 10


def test_words_pictures_and_the_result_come_from_another_process(worker: Worker) -> None:
    words: list[Any] = []
    pictures: list[Any] = []
    found = worker.run(_watched, Context(report=lambda *w: words.append(w), preview=pictures.append))
    assert found != os.getpid()
    assert words == [(1, 4, "looking")] and pictures[0].images.shape == (1, 2, 2, 3)
    assert worker.run(_watched, Context()) == found  # what it loaded is still there


def test_a_job_of_the_registry_is_the_same_there(worker: Worker) -> None:
    job = partial(registry.run, "zoo list", registry.settings("zoo list"))
    assert worker.run(job, Context()) == job(Context())


@pytest.mark.parametrize(
    ("job", "kind", "words"),
    [(_broken, HardwareError, "out of memory"), (_unsendable, InputError, "internal error")],
)
def test_a_fault_is_one_sentence(worker: Worker, job: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        worker.run(job, Context())


@pytest.mark.parametrize("job", [_patient, _deaf])
def test_stopping_takes_less_than_a_second_also_where_nothing_listens(worker: Worker, job: Any) -> None:
    stop, heard = threading.Event(), threading.Event()
    times: list[float] = []

    def cancel() -> None:
        heard.wait(60)
        times.append(time.monotonic())
        stop.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        worker.run(job, Context(report=lambda *_: heard.set(), stop=stop))
    assert time.monotonic() - times[0] < GRACE + 0.3
    thread.join()


def test_a_process_that_dies_is_said_and_another_one_starts(worker: Worker) -> None:
    with pytest.raises(HardwareError, match="out of memory"):
        worker.run(_dying, Context())
    assert worker.run(_watched, Context()) > 0


def test_a_process_at_work_does_not_rest(worker: Worker) -> None:
    rested: list[bool] = []
    worker.run(_watched, Context(preview=lambda _: rested.append(worker.rest())))
    assert rested == [False] and worker.rest()


def test_resting_ends_the_process_and_the_next_job_starts_another(worker: Worker) -> None:
    first = worker.run(_watched, Context())
    worker.rest()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert worker.run(_watched, Context()) != first
