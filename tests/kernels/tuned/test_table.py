"""The table of tiles: which config a shape gets, what is kept on disk, what a damaged file says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kernels.tuned import search, table
from kernels.tuned.configs import Config
from kernels.tuned.problems import Problem
from kernels.tuned.search import distinct
from kernels.tuned.spaces import SPACES, candidates
from kernels.tuned.table import (
    DEFAULTS,
    SHIPPED,
    cache_file,
    device_name,
    key_of,
    lookup,
    read,
    tables,
    triton_version,
    write,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINLAB_KERNEL_CACHE", str(tmp_path))
    tables.cache_clear()
    yield
    tables.cache_clear()


def test_defaults_by_size_and_measured_before_them() -> None:
    large, small = (4096, 4096, 512), (16, 16, 512)
    assert lookup("gemm_fp8", large, CPU) == DEFAULTS["gemm_fp8"][0][1]
    assert lookup("gemm_fp8", small, CPU) == DEFAULTS["gemm_fp8"][-1][1]
    chosen = Config(32, 32, 64, 2, 4, split=3)
    write(cache_file("cpu"), {"gemm_fp8": {key_of(small): chosen}}, {"device": "cpu"})
    assert lookup("gemm_fp8", small, CPU) == chosen
    assert lookup("gemm_fp8", (13, 16, 512), CPU) == chosen  # rows up to the next power of two
    for other in ((17, 16, 512), (16, 16, 256)):
        assert lookup("gemm_fp8", other, CPU) != chosen
    assert lookup("gemm_fp8", (2**9, 2**9, 64), CPU) == DEFAULTS["gemm_fp8"][1][1]  # as large as it says


def test_what_was_tuned_here_comes_before_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SHIPPED", tmp_path / "shipped")
    shipped, own = Config(64, 64, 64), Config(32, 32, 32)
    write(tmp_path / "shipped" / "cpu.json", {"expand": {"1x1": shipped, "2x2": shipped}}, {})
    write(cache_file("cpu"), {"expand": {"1x1": own}}, {})
    assert [lookup("expand", (size, size), CPU) for size in (1, 2)] == [own, shipped]


def test_a_device_has_the_table_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA H200")
    name = device_name.__wrapped__(torch.device("cuda", 0))
    assert (SHIPPED / f"{name}.json").is_file() and device_name(CPU) == "cpu"


def test_the_fastest_config_that_is_right_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = torch.ones(4)
    found = {2: one * torch.nan, 3: one * 1.1, 5: one, 7: one * 1.001, 11: None}
    configs = [Config(stages=stages) for stages in found]
    monkeypatch.setattr(search, "candidates", lambda kind, shape: configs)
    monkeypatch.setattr(
        search, "problem", lambda *_: Problem([lambda config: found[config.stages]], lambda: one)
    )
    monkeypatch.setattr(search, "graph_us", lambda calls, rep_ms: 100 / calls[0].args[0].stages)
    said: list[str] = []
    rows = search.tune("expand", (4, 4), CPU, said.append)
    assert [row["config"].stages for row in rows] == [7, 5, 2, 3, 11]
    assert [row["error"].partition(":")[0] for row in rows] == [
        "",
        "",
        *["ArithmeticError"] * 2,
        "AttributeError",
    ]
    assert "14.3 us" in said[0] and "s7" in said[0]


def test_every_kernel_that_is_tuned_has_defaults() -> None:
    assert set(SPACES) <= set(DEFAULTS)
    assert all(defaults[-1][0] == 0 for defaults in DEFAULTS.values())


def test_shipped_tables_are_read() -> None:
    files = sorted(SHIPPED.glob("*.json"))
    assert files
    for file in files:
        assert set(read(file)) <= set(DEFAULTS)


def test_config_survives_json() -> None:
    config = Config(64, 32, 128, 5, 2, keep=True)
    assert Config.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="unknown tuning field 'tile'"):
        Config.from_json({"tile": 3})


def test_what_a_compiler_may_not_build_is_taken_from_its_own_tables_only(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    plain, queued = Config(64, 64, 64), Config(128, 256, queued=True)
    configs = {"gemm_int8": {"1x1x1": plain, "2x2x2": queued, "4x4x4": Config(special=True)}}
    write(file, configs, {"triton": "0.0"})
    assert read(file) == {"gemm_int8": {"1x1x1": plain}}
    write(file, configs, {"triton": triton_version()})
    assert read(file) == configs and "queued" in queued.label


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    file.write_text('{"configs": {"gemm_fp8": {"1x1x1": {"tile": 1}}}}')
    with pytest.raises(ValueError, match=r"cpu\.json is not a table of tuned kernels .*delete it"):
        lookup("gemm_fp8", (1, 1, 1), CPU)


def test_kept_rows_fit_the_registers_and_code_is_compiled_once() -> None:
    assert all(not config.keep for config in candidates("quantize", (4096, 12288, 32)))
    assert any(config.keep for config in candidates("quantize", (4096, 1280, 32)))
    jobs = [
        ("gemm_fp8", (64, 64, 64)),
        ("gemm_fp8", (128, 64, 64)),
        ("gemm_fp8", (1, 64, 64)),
        ("quantize_many", (140, 64, 32)),
    ]
    assert distinct(jobs) == [jobs[0], jobs[2], jobs[3]]


def test_without_queues_steps_are_deeper() -> None:
    queued = Config(128, 256, 64, 6, 8, group_m=16, queued=True)
    assert queued.unqueued() == Config(128, 256, 128, 3, 8, group_m=16)
    assert Config(128, 128, 128, 5, 4, queued=True).unqueued() == Config(128, 128, 128, 5, 4)
    assert Config(64, 64, 64).unqueued() == Config(64, 64, 64)
