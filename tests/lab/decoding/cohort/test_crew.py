"""What is left of a study when somebody stops it: states of trainings, until their scores are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.decoding.cohort import SIZES, crew, newcomer, training
from lab.decoding.cohort.steps import Step
from lab.decoding.cohort.table import Study
from lab.decoding.cohort.training import Trainer
from lab.progress import silent


class Stopped(BaseException):
    pass


def stopped() -> None:
    raise Stopped


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    (tmp_path / "random.state.safetensors").touch()
    return Trainer(None, SIZES["cohort-small"], tmp_path, 0, "cpu", silent)  # type: ignore[arg-type]


def study(trainer: Trainer) -> Any:
    """Return a study of one step, whose training is finished when it is done."""
    found = Study.__new__(Study)
    found.seed, found.trainer = 0, trainer
    found.board = SimpleNamespace(scores={}, pictures={})  # type: ignore[assignment]
    step = Step("random", (("clusters", "random", "sub-01"),), lambda: trainer.efforts.update(random={}))
    found.steps = [step]
    return found


def test_a_state_stays_until_the_scores_are_kept(trainer: Trainer) -> None:
    one, state = study(trainer), trainer.folder / "random.state.safetensors"
    one.keep = stopped
    with pytest.raises(Stopped):
        one.run()
    assert state.exists()
    one.keep = lambda: None
    one.run()
    assert not state.exists()


def given(monkeypatch: pytest.MonkeyPatch, end: Connection) -> None:
    @contextmanager
    def workers(study: Any, count: int) -> Iterator[list[Connection]]:
        yield [end]

    monkeypatch.setattr(crew, "_workers", workers)


def test_a_state_stays_until_the_first_process_has_kept_the_scores(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, state = study(trainer), trainer.folder / "random.state.safetensors"
    other = trainer.folder / "other.state.safetensors"
    other.touch()
    trainer.efforts["other"] = {}  # of an earlier call: another process may be at it again
    for keep in (stopped, lambda: None):
        end, theirs = Pipe()
        given(monkeypatch, end)
        one.keep = keep
        theirs.send(("made", {}, {}, {"random": {}}))
        if keep is stopped:
            with pytest.raises(Stopped):
                crew.run(one, 1, lambda: None)
            assert state.exists()
        else:
            crew.run(one, 1, lambda: None)
            assert not state.exists() and other.exists()


def test_a_worker_does_not_take_states_away(trainer: Trainer) -> None:
    study(trainer).do("random")
    assert (trainer.folder / "random.state.safetensors").exists()


def test_a_process_that_dies_before_it_has_read_is_named() -> None:
    end, theirs = Pipe()
    end.send("random")
    theirs.close()  # with something unread: the line is reset
    with pytest.raises(RuntimeError, match="that did 'random' died"):
        crew._receive(end, "random")


def test_a_newcomers_own_network_learns_from_all_of_its_trials(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out: list[int] = []
    monkeypatch.setattr(training, "trials", lambda *given: left_out.append(given[5]))
    monkeypatch.setattr(training.training, "train_tokens", lambda *a, **k: None)
    monkeypatch.setattr(Trainer, "_done", lambda *given: None)
    monkeypatch.setattr(newcomer, "begin", lambda *a, **k: None)
    monkeypatch.setattr(newcomer, "know", lambda *a, **k: [None])
    said = SimpleNamespace(left=None, _replace=lambda **k: None)
    one: Any = SimpleNamespace(
        new=SimpleNamespace(index=range(40), name="sub-04", first=lambda n: None), seed=0, trainer=trainer,
        cohort=SimpleNamespace(seen=SimpleNamespace(tokens=None)), ground=SimpleNamespace(sizes={}),
        network=lambda *given: said, add=lambda *given: None,
    )  # fmt: skip
    newcomer._alone(one, 4)
    trainer.tokens("single-sub-01", None, [])  # type: ignore[arg-type]
    assert left_out == [0, trainer.size.held]
