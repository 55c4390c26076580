"""What is large, and what lies oddly in memory: launched within CUDA's limits, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernels import paths
from kernels.attention.log_attention import _run as run_attention
from kernels.images.conv2d import MOST_PIXELS, conv2d
from kernels.images.group_norm import group_norm, sample_scale
from kernels.products.expand import expand
from kernels.products.few_rows import _run as run_few_rows
from kernels.products.few_rows import few_rows
from kernels.products.gemm import LONGEST_INT_SUM, gemm
from kernels.products.lowrank_linear import prepare
from kernels.rows.quantize import quantize
from kernels.tuned.configs import Config

needs_triton = pytest.mark.skipif(not paths.HAS_TRITON, reason="triton is not installed")
MOST = (2**31 - 1, 65535, 65535)
"""Programs along the axes of a grid."""


class Recorder:
    """A kernel that only notes its grids."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.grids.append(grid)
        return lambda *_, **__: None


def meta(*size: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


def many_rows() -> None:
    from kernels.rows.many_kernels import quantize_many

    m, k = 2**20, 64
    codes, scale = meta(m, k, dtype=torch.int8), meta(m, dtype=torch.float32)
    x, down, config = meta(m, k), meta(16, k), Config(64, 512, 64, 3, 4, group_m=4, split=1)
    quantize_many(
        x, None, down, codes, scale, meta(m, 16), None, "int_token", (7, -7, 0), 64, 0.0, k, k, config
    )


def convolution(keep: bool) -> None:
    from kernels.images.conv2d_kernels import launch

    x, weight = meta(64, 512, 512, 16, dtype=torch.int8), meta(160, 3, 3, 16, dtype=torch.int8)
    out, config = meta(64, 512, 512, 160), Config(128, 64, 64, keep=keep)
    launch(x, weight, meta(64), meta(160), None, out, (1, 1), (1, 1), (1, 1), config)


def norm() -> None:
    from kernels.images.group_norm_kernels import largest, statistics

    x, gain = meta(70_000, 4, 16), meta(70_000, 16, dtype=torch.float32)
    statistics(x, 4, None, None, 1e-5, gain, gain)
    largest(x, gain, gain, True)


def attention() -> None:
    q = meta(40_000, 2, 4, 16)
    run_attention(q, q, q, 1.0, 1.0, 15, None, False, False, Config(64, 64))


def few() -> None:
    x, packed, fine = meta(2**20 + 5, 64), meta(32, 32, dtype=torch.uint8), meta(32, 1, dtype=torch.int8)
    run_few_rows(x, packed, fine, 64, None, None, Config(16, 32, 64, 3, 2))


@needs_triton
@pytest.mark.parametrize(
    ("call", "module", "names", "launches"),
    [
        (many_rows, "rows.many_kernels", ("_look", "_write"), 2),
        (lambda: convolution(False), "images.conv2d_kernels", ("_conv_copied", "_conv"), 1),
        (lambda: convolution(True), "images.conv2d_kernels", ("_conv_copied", "_conv"), 1),
        (norm, "images.group_norm_kernels", ("_boxes", "_merge", "_largest"), 3),
        (attention, "attention.log_attention_kernels", ("_scan", "_attend"), 4),
        (few, "products.few_rows_kernels", ("_few_rows", "few_rows_scaled"), 5),
    ],
)
def test_grids_stay_within_the_launch_limit(
    call: Callable[[], None], module: str, names: tuple[str, ...], launches: int, monkeypatch: Any
) -> None:
    recorder = Recorder()
    for name in names:
        monkeypatch.setattr(f"kernels.{module}.{name}", recorder)
    call()
    assert len(recorder.grids) == launches
    assert max(grid[0] for grid in recorder.grids) > MOST[1] or launches > 3  # large enough to be a test
    assert all(1 <= size <= most for grid in recorder.grids for size, most in zip(grid, MOST, strict=False))


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same numbers, every second place of memory."""
    return torch.stack([tensor, tensor], -1)[..., 0]


def test_vectors_with_gaps_are_refused() -> None:
    codes, weight = torch.zeros(4, 64, dtype=torch.int8), torch.zeros(24, 64, dtype=torch.int8)
    row, column, bias, x = torch.ones(4), torch.ones(24), torch.ones(24), torch.ones(4, 64)
    packed, fine = torch.zeros(24, 32, dtype=torch.uint8), torch.zeros(24, 1, dtype=torch.int8)
    image, kernel = codes.reshape(1, 2, 2, 64), weight.reshape(24, 1, 1, 64)
    channels = torch.ones(64)
    calls = {
        "gemm: row_scale": lambda: gemm(codes, strided(row), weight, column),
        "gemm: bias": lambda: gemm(codes, row, weight, column, strided(bias)),
        "gemm: out_scale": lambda: gemm(
            codes, row, weight, column, dtype=torch.int8, out_scale=strided(row)
        ),
        "conv2d: column_scale": lambda: conv2d(image, row[:1], kernel, strided(column)),
        "conv2d: bias": lambda: conv2d(image, row[:1], kernel, column, strided(bias)),
        "few_rows: column_scale": lambda: few_rows(x, packed, fine, 64, strided(column)),
        "few_rows: scale": lambda: few_rows(x[:, :64], packed, strided(torch.zeros(24, 2).char()), 32),
        "quantize: inverse_smooth": lambda: quantize(x, "int_token", inverse_smooth=strided(channels)),
        "quantize: scale": lambda: quantize(x, "int_token", scale=strided(row)),
        "group_norm: weight": lambda: group_norm(x[None], 4, strided(channels), channels),
    }  # fmt: skip
    for words, call in calls.items():
        with pytest.raises(ValueError, match=f"{words} must be contiguous, got strides"):
            call()


def test_no_images_have_no_statistics() -> None:
    x = torch.zeros(0, 9, 16)
    before = group_norm(x, 4, torch.ones(16), torch.zeros(16))
    assert before.gain is not None and before.gain.shape == (0, 16)
    assert sample_scale(x, before, 127).shape == (0,)


def test_what_32_bits_do_not_count_is_refused() -> None:
    k = LONGEST_INT_SUM + 1
    worst = torch.full((1, k), -128, dtype=torch.int8)
    assert k * 128 * 128 == 2**31  # one more than int32 holds
    with pytest.raises(ValueError, match=f"overflow int32 above K = {LONGEST_INT_SUM}, got {k}"):
        gemm(worst, torch.ones(1), worst, torch.ones(1))
    with pytest.raises(ValueError, match=f"overflow above {LONGEST_INT_SUM} products"):
        conv2d(worst[:, None, None], torch.ones(1), worst[:, None, None], torch.ones(1))
    pixels, kernel = meta(2**21, 2**5, 2**5, 1, dtype=torch.int8), meta(1, 1, 1, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match=f"at most {MOST_PIXELS} pixels"):
        conv2d(pixels, meta(2**21, dtype=torch.float32), kernel, meta(1, dtype=torch.float32))


def test_other_bad_input_is_named() -> None:
    image, kernel = torch.zeros(1, 2, 2, 16, dtype=torch.int8), torch.zeros(4, 3, 3, 16, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"a kernel of \(3, 3\) .* does not fit an image of \(2, 2\)"):
        conv2d(image, torch.ones(1), kernel, torch.ones(4))
    packed, fine = torch.zeros(4, 32, dtype=torch.uint8), torch.zeros(4, 1, dtype=torch.int8)
    for group, codes in ((0, packed), (64, packed[0])):
        with pytest.raises(ValueError, match="groups of at least one column and packed"):
            few_rows(torch.ones(1, 64), codes, fine, group)
    x = torch.randn(2, 9, 16)
    before = group_norm(x, 4)
    for wrong in (x[:1], x.transpose(0, 1), x.flatten(0, 1)):
        with pytest.raises(ValueError, match="sample_scale: x must be the contiguous"):
            sample_scale(wrong, before, 448)


def shifted(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same numbers, contiguous, one byte further on in memory."""
    room = torch.empty(tensor.numel() + 17, dtype=torch.uint8)
    first = 1 - room.data_ptr() % 16
    room = room[first % 16 :][: tensor.numel()].view(tensor.dtype).view(tensor.shape)
    return room.copy_(tensor)


@needs_triton
def test_what_lies_between_words_is_read_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.images.conv2d_kernels import copied
    from kernels.products import expand_kernels

    image, weight = (torch.zeros(1, 4, 4, 16, dtype=torch.int8) for _ in range(2))
    for tensors in ((image, shifted(weight)), (shifted(image), weight)):
        assert shifted(image).data_ptr() % 16 == 1
        assert not copied(*tensors, meta(1, 4, 4, 16), (1, 1), (1, 1), Config())
    assert copied(image.clone(), weight.clone(), meta(1, 4, 4, 16), (1, 1), (1, 1), Config())
    packed, fine = torch.zeros(24, 32, dtype=torch.uint8), torch.zeros(24, 1, dtype=torch.int8)
    found: list[bool] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *_, **options: found.append(options["WORDS"])

    monkeypatch.setattr(expand_kernels, "_expand", Kernel())
    integers = fine.to(torch.uint8)
    for codes, scales, k, signed, least in (
        (packed, fine, 64, True, -6), (shifted(packed), fine, 64, True, -6), (packed, fine, 60, True, -6),
        (packed, fine, 64, False, -6), (packed, fine, 64, True, -7), (packed, integers, 64, True, -6),
    ):  # fmt: skip
        expand_kernels.launch(
            codes, scales, meta(24, 64), None, None, None, None, k, 64, 64, signed, least,
            Config(1, 8, 256, 1, 4),
        )  # fmt: skip
    assert found == [True] + 5 * [False]


@needs_triton
def test_the_copy_engine_gets_what_it_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.products import gemm_kernels

    found: list[tuple[bool, bool]] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *_, **options: found.append((options["COPY_IN"], options["COPY_OUT"]))

    monkeypatch.setattr(gemm_kernels, "_gemm", Kernel())
    a, b, row, column = torch.zeros(4, 64).char(), torch.zeros(24, 64).char(), torch.ones(4), torch.ones(24)
    narrow = torch.zeros(4, 72).char()[:, :64]
    half = torch.zeros(4, 24).bfloat16()
    for x, w, out in (
        (a, b, half), (a[:1].expand(4, 64), b, half), (narrow, b, half), (shifted(a), b, half),
        (a, shifted(b), half), (a, b, torch.zeros(4, 25).bfloat16()[:, :24]), (a, b, half[:, :20].clone()),
    ):  # fmt: skip
        gemm_kernels.launch(x, row, w, column, None, None, None, out, "none", None, None, Config(64, 64, 64))
    assert found == [(True, True)] + 4 * [(False, True)] + 2 * [(True, False)]


@needs_triton
def test_images_that_boxes_do_not_cut_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.images.conv2d_kernels import copied, launch

    def boxes(c: int, n: int, stride: tuple[int, int], dilation: tuple[int, int], config: Config) -> bool:
        x, weight = (torch.zeros(size, 4, 4, c, dtype=torch.int8) for size in (1, n))
        return copied(x, weight, meta(1, 4, 4, n), stride, dilation, config)

    one = (1, 1)
    assert boxes(16, 8, one, one, Config())
    for c, n, stride, dilation, config in (
        (24, 8, one, one, Config()), (16, 4, one, one, Config()), (16, 8, (1, 2), one, Config()),
        (16, 8, one, (2, 1), Config()), (16, 8, one, one, Config(keep=True)),
    ):  # fmt: skip
        assert not boxes(c, n, stride, dilation, config), (c, n, stride, dilation, config)
    recorders = {name: Recorder() for name in ("_conv_copied", "_conv")}
    for name, recorder in recorders.items():
        monkeypatch.setattr(f"kernels.images.conv2d_kernels.{name}", recorder)
    for width, name in ((8, "_conv_copied"), (4, "_conv")):  # of narrow images a box has narrow rows
        x, weight, out = meta(1, 64, width, 16, dtype=torch.int8), meta(8, 1, 1, 16), meta(1, 64, width, 8)
        launch(x, weight, meta(1), meta(8), None, out, one, (0, 0), one, Config(128, 64, 64))
        assert recorders[name].grids.pop() and not any(other.grids for other in recorders.values())


@needs_triton
def test_products_are_queued_on_hopper_by_a_known_compiler_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.products import gemm_kernels

    class There:
        dtype, device, shape, is_cuda = torch.int8, torch.device("cuda"), (64, 64), True

    queued, out = Config(queued=True), meta(64, 64)
    monkeypatch.setattr(paths, "capability", lambda device: (9, 0))
    monkeypatch.setattr(gemm_kernels, "triton_version", lambda: "3.6.0")
    assert gemm_kernels.queues(There(), out, queued)
    assert not gemm_kernels.queues(There(), out, Config())
    assert not gemm_kernels.queues(There(), out.float(), queued)
    monkeypatch.setattr(gemm_kernels, "triton_version", lambda: "3.10.0")
    assert not gemm_kernels.queues(There(), out, queued)
    monkeypatch.setattr(gemm_kernels, "triton_version", lambda: "3.7.1")
    monkeypatch.setattr(paths, "capability", lambda device: (10, 0))
    assert not gemm_kernels.queues(There(), out, queued)


@needs_triton
def test_queued_tiles_fit_and_have_rows_for_all_warps() -> None:
    from kernels.products.gemm_kernels import queued_tiles
    from kernels.tuned.spaces import SPACES

    found = {
        rank: [queued_tiles(config, 2, 230_400, rank) for config in SPACES["gemm_int8_rank"] if config.queued]
        for rank in (0, 16, 32, 64, 128, 256, 512, 1024)
    }
    for rank, configs in found.items():
        for one in filter(None, configs):
            tiles = one.stages * (one.block_m + one.block_n) * one.block_k + 2 * one.block_m * one.block_n
            assert tiles + 2 * rank * (one.block_m + one.block_n) <= 230_400
            assert one.queued and one.block_m // one.warps >= 16, (rank, one)
    assert all(found[128]) and None in found[512]  # eight warps, 64 rows


def test_group_scales_that_leave_8_bits_are_refused() -> None:
    packed, column = torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4)
    for fine, words in ((torch.int8, r"-9\.\.6, got 0\.\.7"), (torch.uint8, r"0\.\.15, got 0\.\.16")):
        scales = torch.zeros(4, 1, dtype=fine)
        scales[2] = 7 if fine == torch.int8 else 16
        with pytest.raises(ValueError, match=f"group scales lie in {words}; codes times larger"):
            prepare(packed, scales, column, 64)
    tail = torch.zeros(4, 48).to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"a power of two of columns, got \(4, 48\)"):
        expand(packed, torch.zeros(4, 1, dtype=torch.int8), 64, tail=tail)
