"""Run folders: going on after a kill, one process, one configuration, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError, explain
from lab.progress import silent
from lab.runs.folder import Run, config_hash
from lab.runs.lock import FolderLock, alone_with
from lab.runs.metrics import equal_metrics, tidy
from lab.runs.settings import read_settings

CONFIG = {"seed": 0, "train": {"epochs": 3}}


def work(run: Run, calls: list[str] | None = None) -> dict:
    """A small job of two steps, the way real jobs use a run."""

    def first() -> dict:
        if calls is not None:
            calls.append("first")
        return {"numbers": np.arange(4, dtype=np.float32) / 3, "note": ("a", 1)}

    def second() -> dict:
        if calls is not None:
            calls.append("second")
        return {"weights": {"w": torch.full((2, 2), 0.1)}, "loss": 1 / 3}

    a = run.step("first", first)
    b = run.step("second", second)
    return run.write_metrics(
        {"sum": a["numbers"].sum(), "loss": b["loss"], "w": float(b["weights"]["w"].sum())}
    )


def test_a_run_writes_settings_log_and_metrics_and_goes_on(tmp_path: Path) -> None:
    calls: list[str] = []
    with Run.open(tmp_path / "r", CONFIG) as run:
        first = work(run, calls)
        assert not run.finished
        run.finish()
    with Run.open(tmp_path / "r", CONFIG) as run:
        assert run.finished
        second = work(run, calls)
    assert calls == ["first", "second"]
    assert {**first, "seconds_total": 0} == {**second, "seconds_total": 0}
    assert read_settings(tmp_path / "r" / "config.yaml") == CONFIG
    assert config_hash(CONFIG) in (tmp_path / "r" / "config.yaml").read_text()
    events = [json.loads(line)["event"] for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert events == ["open", "step", "step", "done", "open", "step", "step"]


def test_step_gives_the_same_fresh_and_cached(tmp_path: Path) -> None:
    output = {
        "x": np.random.default_rng(0).normal(size=3),
        "state": {"w": torch.randn(2)},
        "v": float("nan"),
        "t": (1,),
    }
    with Run.open(tmp_path / "r", CONFIG) as run:
        fresh = run.step("s", lambda: output)
        cached = run.step("s", lambda: pytest.fail("computed twice"))
    assert fresh["x"].dtype == cached["x"].dtype == np.float64
    assert np.array_equal(fresh["x"], output["x"]) and np.array_equal(cached["x"], output["x"])
    assert torch.equal(cached["state"]["w"], output["state"]["w"])
    assert np.isnan(cached["v"]) and cached["t"] == fresh["t"] == [1]


def test_a_damaged_step_is_computed_again(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", CONFIG) as run:
        run.step("s", lambda: {"x": np.arange(3)})
        (tmp_path / "r" / "steps" / "s.npz").write_bytes(b"PK")
        assert run.step("s", lambda: {"x": np.arange(3) + 1})["x"].tolist() == [1, 2, 3]
        (tmp_path / "r" / "steps" / "s.json").write_text("{")
        assert run.step("s", lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]


def test_objects_are_not_stored(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", CONFIG) as run, pytest.raises(TypeError, match="Python objects"):
        run.step("s", lambda: {"x": np.array([{}, None], dtype=object)})


def test_other_settings_in_the_same_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    Run.open(tmp_path / "r", CONFIG).close()
    with pytest.raises(InputError) as refused:
        Run.open(tmp_path / "r", {"seed": 1, "train": {"epochs": 3}})
    message = str(refused.value)
    assert "seed: 0 -> 1" in message and "epochs" not in message and "\n" not in message
    assert explain(refused.value).code == 2
    Run.open(tmp_path / "r", CONFIG).close()  # and the lock was given back


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        Run.open(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        Run.open(tmp_path / "thesis.tex", CONFIG)


def test_settings_of_a_real_configuration_round_trip(tmp_path: Path) -> None:
    config = ReconstructConfig(dataset="digits69", root=".", seed=3)
    Run.open(tmp_path / "r", config).close()
    again = ReconstructConfig.model_validate(read_settings(tmp_path / "r" / "config.yaml"))
    assert again == config
    Run.open(tmp_path / "r", again).close()


def test_a_second_process_is_refused_while_the_first_lives_and_let_in_after_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom lab.runs.folder import Run\n"
        f"run = Run.open({str(tmp_path / 'r')!r}, {CONFIG!r})\nprint('open', flush=True)\ntime.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(InputError, match=f"in use by process {holder.pid}"):
            Run.open(tmp_path / "r", CONFIG)
    finally:
        holder.kill()
        holder.wait()
    Run.open(tmp_path / "r", CONFIG).close()


JOB = """
import os, signal, sys
import numpy as np
from lab.runs.folder import Run
kill_in = sys.argv[2]
with Run.open(sys.argv[1], {"seed": 0}) as run:
    rng = np.random.default_rng(0)
    for i in range(4):
        def compute(i=i):
            if kill_in == str(i):
                # Half a file and half a log line, as a real kill would leave them.
                (run.path / "steps").mkdir(exist_ok=True)
                (run.path / "steps" / f".s{i}.1.part.npz").write_bytes(b"half")
                with (run.path / "log.jsonl").open("a") as log: log.write('{"event": "st')
                os.kill(os.getpid(), signal.SIGKILL)
            return {"x": np.random.default_rng(i).normal(size=5)}
        run.step(f"s{i}", compute)
    total = sum(run.step(f"s{i}", lambda: 1 / 0)["x"].sum() for i in range(4))
    run.write_metrics({"total": total})
    run.finish()
"""


@pytest.mark.parametrize("where", ["0", "2"])
def test_kill_9_in_the_middle_and_the_same_command_ends_with_the_same_metrics(
    tmp_path: Path, where: str
) -> None:
    def start(folder: str, kill_in: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", JOB, str(tmp_path / folder), kill_in], check=False
        ).returncode

    assert start("whole", "never") == 0
    assert start("killed", where) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "metrics.json").exists()
    assert start("killed", "never") == 0
    assert equal_metrics(tmp_path / "whole", tmp_path / "killed") == []
    assert not [p for p in (tmp_path / "killed").rglob("*") if ".part" in p.name]
    lines = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert [line for line in lines if line.startswith('{"event": "st')] == ['{"event": "st']
    assert json.loads(lines[-1])["event"] == "done"


def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.npz")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="No space") as failed, Run.open(tmp_path / "r", CONFIG) as run:
            work(run)
    failure = explain(failed.value)
    assert failure.code == 2 and failure.message.startswith("disk full") and "\n" not in failure.message
    assert not [p for p in (tmp_path / "r").rglob("*") if ".part" in p.name or p.suffix == ".npz"]
    with Run.open(tmp_path / "r", CONFIG) as run:
        assert work(run)["sum"] == 2.0


def test_seconds_count_the_work_of_all_sessions(tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", CONFIG) as run:
        run.step("slow", lambda: (time.sleep(0.3), {"x": 1})[1])
    with Run.open(tmp_path / "r", CONFIG) as run:
        run.step("slow", lambda: {"x": 1})
        assert 0.3 <= run.seconds_total() < 1.5


def test_metrics_are_flat_sorted_rounded_and_compared_without_the_time(tmp_path: Path) -> None:
    assert tidy({"b": 1 / 3, "a": np.float32(2), "n": float("nan"), "z": -1e-300 * 1e-300}) == {
        "a": 2.0,
        "b": 0.333333,
        "n": None,
        "z": 0.0,
    }
    with pytest.raises(TypeError, match="flat"):
        tidy({"nested": {"x": 1}})
    for name, extra in (("one", {}), ("two", {}), ("three", {"ssim": 0.4})):
        with Run.open(tmp_path / name, CONFIG) as run:
            run.write_metrics({"pixcorr": 0.8, "seconds_total": len(name), **extra})
    assert equal_metrics(tmp_path / "one", tmp_path / "two") == []
    assert equal_metrics(tmp_path / "one", tmp_path / "three") == [f"ssim: only in {tmp_path / 'three'}"]
    (tmp_path / "two" / "metrics.json").write_text('{"pixcorr": 0.8')
    with pytest.raises(InputError, match="not a JSON file"):
        equal_metrics(tmp_path / "one", tmp_path / "two")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as failed:
        Run.open(tmp_path / "r", CONFIG)
    assert explain(failed.value).code == 2


def test_a_folder_is_checked_without_being_claimed(tmp_path: Path) -> None:
    Run.check(tmp_path / "new", CONFIG)
    assert not (tmp_path / "new").exists()
    with Run.open(tmp_path / "r", CONFIG):
        Run.check(tmp_path / "r", CONFIG)
    with pytest.raises(InputError, match="made with other settings"):
        Run.check(tmp_path / "r", {**CONFIG, "seed": 1})
    with pytest.raises(InputError, match="r is a folder of another command"):
        Run.check(tmp_path / "r", {"model": "m", "recipe": "r"})
    (tmp_path / "file").write_text("thesis")
    with pytest.raises(InputError, match="is a file"):
        Run.check(tmp_path / "file", CONFIG)
    with pytest.raises(InputError, match="holds other files"):
        Run.check(tmp_path, CONFIG)


def test_a_finished_run_whose_result_was_removed_goes_on(tmp_path: Path) -> None:
    def whole() -> bool:
        with Run.open(tmp_path / "run", {"seed": 1}) as run:
            return run.finished

    with Run.open(tmp_path / "run", {"seed": 1}) as run:
        (run.path / "model.safetensors").write_text("codes")
        run.finish()
    assert whole()
    (tmp_path / "run" / "log.jsonl").unlink()
    assert whole(), "the log is not a result"
    (tmp_path / "run" / "model.safetensors").unlink()
    assert not whole()
    (tmp_path / "run" / "done.json").write_text('{"config": "abc"}')
    assert whole(), "of before the files were named"


def test_a_folder_that_is_not_there_yet_is_held_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path / "cache"))
    with alone_with(tmp_path / "a", silent) as held, alone_with(tmp_path / "b", silent):
        lock = held._path.parent
        with pytest.raises(InputError, match="in use by process"):
            FolderLock(lock).acquire()
    FolderLock(lock).acquire().release()
    assert not (tmp_path / "a").exists()
