"""Training of extractor and keys: stopped anywhere, it goes on to the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quant.adapters.watermark import core, course
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.core import Decoder
from quant.adapters.watermark.course import Pace
from quant.adapters.watermark.extractor import Extractor
from quant.errors import InputError
from quant.registry import Context
from quant.training.state import State

MESSAGE = "10110010"


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and reports at every step."""
    monkeypatch.setattr(course, "EVERY", 0.0)
    monkeypatch.setattr(course, "LOOK", 1)


@pytest.fixture
def few(config: WatermarkConfig) -> WatermarkConfig:
    return config.model_copy(update={"extractor_steps": 12, "key_steps": 12})


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, str], None]:
    """Stop at a step; the last checkpoint is three steps older."""

    def progress(done: int, total: int, what: str) -> None:
        if done == step - 3:
            monkeypatch.setattr(course, "EVERY", math.inf)
        if done == step:
            torch.manual_seed(99)  # another process has other random numbers
            monkeypatch.setattr(course, "EVERY", 0.0)
            raise Killed

    return progress


def test_an_extractor_that_is_killed_goes_on_to_the_same_bytes(
    decoder: Decoder, few: WatermarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cost = core.train_extractor(decoder, few, Context(seed=1))
    state = State(tmp_path / "s")
    for step in (5, 9):  # before and after batch norms freeze
        with pytest.raises(Killed):
            core.train_extractor(
                decoder, few, Context(seed=1, progress=killed_at(step, monkeypatch), state=state)
            )
        saved = state.get("extractor")
        assert saved is not None and saved.values["step"] == step - 3
    seen: list[int] = []
    resumed, again = core.train_extractor(
        decoder, few, Context(seed=1, progress=lambda done, *_: seen.append(done), state=state)
    )
    assert seen == list(range(6, 12))
    assert (again.steps, again.trace) == (cost.steps, cost.trace) and again.steps == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    # the end is kept too: what is stopped before its file is written does not train again
    ended, _ = core.train_extractor(decoder, few, Context(seed=1, progress=refused, state=state))
    assert all(torch.equal(v, whole.state_dict()[n]) for n, v in ended.state_dict().items())


def refused(*_: Any) -> None:
    raise AssertionError("trained again")


def test_a_key_that_is_killed_goes_on_to_the_same_bytes(
    decoder: Decoder, reader: Extractor, few: WatermarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(**options: Any) -> Any:
        return core.train_key(decoder, reader, MESSAGE, few, Context(seed=2, **options))

    factors, balance, cost = train()
    state = State(tmp_path / "s")
    with pytest.raises(Killed):
        train(progress=killed_at(7, monkeypatch), state=state)
    resumed, again, spent = train(state=state)
    assert again == balance and balance.message > 0 and spent.trace == cost.trace
    for name, value in factors.tensors().items():
        assert torch.equal(value, resumed.tensors()[name]), name


@pytest.mark.gpu
def test_on_a_gpu_it_goes_on_with_the_same_random_numbers(
    decoder: Decoder, few: WatermarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Decoder(decoder.model.cuda(), decoder.model, decoder.inputs.cuda())
    core.train_extractor(there, few, Context("cuda", seed=1))
    wanted = torch.get_rng_state(), torch.cuda.get_rng_state()
    state = State(tmp_path / "s")
    with pytest.raises(Killed):
        killed = killed_at(7, monkeypatch)
        core.train_extractor(there, few, Context("cuda", seed=1, progress=killed, state=state))
    _, cost = core.train_extractor(there, few, Context("cuda", seed=1, state=state))
    assert cost.steps == 12
    assert torch.equal(torch.get_rng_state(), wanted[0])
    assert torch.equal(torch.cuda.get_rng_state(), wanted[1])


def test_a_slow_step_is_reported_but_not_noted(
    decoder: Decoder, reader: Extractor, few: WatermarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "LOOK", 10)
    for seconds, said in ((math.inf, [0, 10]), (0.0, list(range(12)))):
        monkeypatch.setattr(course, "SAY", seconds)
        seen: list[int] = []
        context = Context(progress=lambda done, *_, seen=seen: seen.append(done))
        *_, cost = core.train_key(decoder, reader, MESSAGE, few, context)
        assert seen == said and [row["step"] for row in cost.trace] == [0, 10]


def test_minutes_count_all_starts(
    decoder: Decoder, reader: Extractor, few: WatermarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "s")
    with pytest.raises(Killed):
        core.train_key(
            decoder, reader, MESSAGE, few, Context(progress=killed_at(7, monkeypatch), state=state), 10
        )
    saved = state.get("key-0")
    assert saved is not None and 0 < saved.values["cost"]["seconds"] < 600
    saved.values["cost"]["seconds"] = 600.0
    state.put("key-0", *saved)
    *_, cost = core.train_key(decoder, reader, MESSAGE, few, Context(progress=refused, state=state), 10)
    assert cost.steps == 4 and cost.seconds >= 600


def test_the_end_is_the_mean_of_the_parameters() -> None:
    """``m + (1 - min(memory, (t + 1) / (t + 10))) (p - m)`` after each step."""
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    course_ = course.Course("c", module, Pace(6, 0.1, 1, 0.0, 0.4), Context(), {})
    mean = module.weight.detach().clone()
    for step, _ in enumerate(course_.shares()):
        course_.update((module.weight * torch.tensor([[1.0, -2.0, step - 3.0]])).sum())
        mean += (1 - min(0.4, (step + 1) / (step + 10))) * (module.weight.detach() - mean)
        last = module.weight.detach().clone()
    torch.testing.assert_close(module.weight.detach(), mean)
    assert not torch.allclose(module.weight, last)


def test_time_that_is_short_counts_as_steps(few: WatermarkConfig) -> None:
    pace = Pace(100, 1e-2, warm_up=10, decay=0.0, memory=0.9, minutes=2)
    assert pace.share(10, 60) == 0.5 and pace.share(70, 60) == 0.7
    assert pace.rate_at(0, 0.0) == pytest.approx(1e-3) and pace.rate_at(50, 1.0) == pytest.approx(2e-4)


def test_a_loss_that_is_no_number_stops_and_is_not_kept(
    decoder: Decoder, reader: Extractor, few: WatermarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []
    real = core.picture_loss

    def broken(*given: Any) -> Tensor:
        calls.append(given[0])
        return real(*given) * (math.nan if len(calls) > 4 else 1)

    monkeypatch.setattr(core, "picture_loss", broken)
    monkeypatch.setattr(course, "LOOK", 100)  # found where a checkpoint would be written
    state = State(tmp_path / "s")
    with pytest.raises(InputError, match=r"key-0: the loss became nan near step 5: train with a lower rate"):
        core.train_key(decoder, reader, MESSAGE, few, Context(state=state))
    saved = state.get("key-0")
    assert saved is not None and saved.values["step"] == 4
    assert all(bool(torch.isfinite(t).all()) for n, t in saved.tensors.items() if n.startswith("parameter."))


def test_weights_that_are_no_numbers_are_refused(
    decoder: Decoder, reader: Extractor, few: WatermarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step may break them while its loss, from before it, is a number."""
    config = few.model_copy(update={"key_steps": 1})
    update = course.Course.update

    def broken(self: course.Course, loss: Tensor) -> None:
        update(self, loss)
        next(iter(self.means.values())).fill_(math.inf)

    monkeypatch.setattr(course.Course, "update", broken)
    with pytest.raises(InputError, match="key-0: the weights are not finite after 1 steps"):
        core.train_key(decoder, reader, MESSAGE, config, Context())


def test_a_message_of_another_length_is_refused(
    decoder: Decoder, reader: Extractor, few: WatermarkConfig
) -> None:
    with pytest.raises(InputError, match="message has 3 bits; this extractor reads 8"):
        core.train_key(decoder, reader, "101", few, Context(progress=refused))
