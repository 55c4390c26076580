"""A job on a thread of its own: progress, previews, cancelling, faults, and who goes on alone."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from lab.jobs import running
from lab.jobs.contract import Context, Preview
from lab.jobs.running import Running


def _endless(context: Context) -> Any:
    while True:
        context.progress(1, 10, "drawing")
        time.sleep(0.02)


def test_progress_and_previews_come_before_the_result() -> None:
    def job(context: Context) -> int:
        context.progress(1, 4, "looking")
        context.preview(Preview("step", 1, 2, np.zeros((1, 2, 2, 3), np.uint8)))
        return 7

    kinds = list(Running(job).follow())
    assert [kind for kind, _ in kinds] == ["progress", "preview", "done"] and kinds[-1][1] == 7
    assert kinds[0][1].startswith("looking (1 of 4")


def test_a_fault_is_handed_over() -> None:
    def job(context: Context) -> None:
        raise MemoryError("all of it")

    (kind, fault), *_ = Running(job).follow()
    assert kind == "fault" and isinstance(fault, MemoryError)


def test_a_silent_job_says_that_it_is_still_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "QUIET", 0.05)

    def job(context: Context) -> None:
        time.sleep(0.12)
        context.progress(1, 4, "looking")
        time.sleep(0.12)

    said = [str(words) for kind, words in Running(job).follow(every=0) if kind == "progress"]
    assert said[0] == "starting ... at work on this for 0 s"
    assert said[-1].startswith("looking (1 of 4") and "at work on this" in said[-1]


def test_cancelling_takes_less_than_a_second_also_while_waiting_for_the_device() -> None:
    first, second = Running(_endless), Running(_endless)
    following = [running.follow(every=0) for running in (first, second)]
    assert next(following[0])[0] == "progress"
    kind, words = next(following[1])
    assert kind == "progress" and "waiting for another job" in words
    for one, events in ((second, following[1]), (first, following[0])):
        began = time.monotonic()
        one.cancel()
        assert [kind for kind, _ in events][-1] == "cancelled"
        assert time.monotonic() - began < 1


def test_a_job_that_stays_goes_on_when_nobody_follows_it() -> None:
    finish, ended = threading.Event(), threading.Event()

    def job(context: Context) -> None:
        context.progress(0, 1, "training")
        finish.wait(5)
        context.check()
        ended.set()

    events = Running(job, stays=True).follow()
    next(events)
    events.close()
    finish.set()
    assert ended.wait(5)


def test_a_job_that_does_not_stay_ends_with_its_page() -> None:
    running = Running(_endless)
    events = running.follow()
    next(events)
    events.close()
    deadline = time.monotonic() + 2
    while running.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running.alive
