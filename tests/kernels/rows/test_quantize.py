from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from kernels import paths
from kernels.rows import quantize as quantizing
from kernels.rows.before import Before
from kernels.rows.many_kernels import EACH, SHARED, steps_ahead
from kernels.rows.operands import balance_of, branch_columns, padded_columns, two_floats
from kernels.rows.quantize import MANY_ROWS, Kind, Rows, quantize
from kernels.tuned.configs import Config
from kernels.tuned.spaces import SPACES
from kernels.tuned.table import DEFAULTS

KINDS: list[tuple[Kind, int]] = [
    ("int_token", 8), ("int_token", 4), ("int_group", 4), ("pow2_group", 4), ("e4m3_token", 4),
]  # fmt: skip
RANK = 32
WAYS = [Config(64, 128, 64, 3, 4, group_m=4, split=2), Config(32, 512, 128, 2, 4, group_m=8, split=3)]
"""Shares of the first look, tiles of the second."""
ALL = (torch.bfloat16, torch.float16, torch.float32)


def drawn(m: int, k: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(m, k, generator=generator) * torch.exp(torch.randn(k, generator=generator))
    x[0] = 0
    if m > 4:
        x[1, 3], x[2, 3] = float("nan"), float("inf")
    return x.to(dtype)


def check(device: str, kinds: list[tuple[Kind, int]] = KINDS) -> None:
    """Kernel against reference: scales and codes equal, the branch to rounding, no NaN lost."""
    generator = torch.Generator().manual_seed(0)
    for kind, bits in kinds:
        for m, k in ((130, 200), (300, 1032)) if device != "cpu" else ((130, 200),):
            shared_rows(kind, bits, m, k, device)
        for (m, k), dtypes in zip(
            ((20, 256), (5, 123), (1, 64), (17, 9)), (ALL, ALL[:1], ALL[:1], ALL[2:]), strict=True
        ):
            for dtype in dtypes:
                x = drawn(m, k, dtype).to(device)
                smooth = (torch.rand(k, generator=generator) + 0.5).to(device)
                down = (torch.randn(RANK, k, generator=generator) * 0.1).to(dtype).to(device)
                up, column = (
                    torch.randn(24, RANK, generator=generator),
                    torch.rand(24, generator=generator) * 1e-3,
                )
                if kind in ("pow2_group", "e4m3_token"):
                    down, _ = branch_columns(down, up.to(device), column.to(device))
                # branch and kept rows by pairwise cover with the shapes
                for branch, keep in ((None, False), (down, True)) if m % 2 else ((None, True), (down, False)):
                    compare(x, kind, bits, smooth, branch, keep, unsigned=kind.endswith("group") and m == 20)
    for before in BEFORES if device == "cpu" else ():  # on a GPU each is a test
        for dtype in ALL[:2]:
            fused(before, dtype, device)


def compare(
    x: torch.Tensor,
    kind: Kind,
    bits: int,
    smooth: torch.Tensor,
    down: torch.Tensor | None,
    keep: bool,
    unsigned: bool,
) -> None:
    options = {
        "bits": bits,
        "inverse_smooth": smooth,
        "down": down,
        "unsigned": unsigned,
        "shift": 0.3 * unsigned,
    }
    exact = quantize(x, kind, path="reference", **options)
    ours = quantize(x, kind, path="triton", config=Config(16, 1, 128, 3, 4, keep=keep), **options)
    agree(exact, ours, x)


def agree(exact: Rows, ours: Rows, x: torch.Tensor) -> None:
    finite = exact.scale.isfinite()
    assert torch.equal(finite, x.isfinite().all(1)) and torch.equal(ours.scale.isfinite(), finite)
    assert torch.equal(exact.scale[finite], ours.scale[finite])
    columns = padded_columns(x.shape[1])
    assert torch.equal(exact.codes[finite][:, :columns].float(), ours.codes[finite][:, :columns].float())
    if exact.low is None and exact.codes.shape[1] == columns:
        return
    if exact.low is not None and ours.low is not None:
        left, right = exact.low[finite].float(), ours.low[finite].float()
    else:
        left, right = (
            rows.codes[finite][:, columns : columns + RANK].float()
            + rows.codes[finite][:, columns + 2 * RANK :][:, :RANK].float()
            for rows in (exact, ours)
        )
    assert (left - right).abs().max() <= 2**-6 * left.abs().max()


def shared_rows(kind: Kind, bits: int, m: int, k: int, device: str) -> None:
    """Many rows and a branch: what programs find of a row, and what is written from it."""
    x = drawn(m, k, torch.bfloat16).to(device)
    generator = torch.Generator().manual_seed(8)
    smooth = (torch.rand(k, generator=generator) + 0.5).to(device)
    down = (torch.randn(RANK, k, generator=generator) * 0.1).bfloat16().to(device)
    if kind in ("pow2_group", "e4m3_token"):
        up, column = torch.randn(24, RANK, generator=generator), torch.rand(24, generator=generator) * 1e-3
        down, _ = branch_columns(down, up.to(device), column.to(device))
    assert m >= MANY_ROWS
    options = {"bits": bits, "inverse_smooth": smooth, "down": down}
    exact = quantize(x, kind, path="reference", **options)
    if kind in ("pow2_group", "e4m3_token"):  # the branch's powers of two may come beside it
        powers = torch.ldexp(torch.ones(RANK), torch.arange(RANK) % 5 - 2).to(device)
        apart = {**options, "down": (down.float() / powers[:, None]).to(down.dtype), "balance": powers}
        same = quantize(x, kind, path="reference", **apart)
        whole = exact.scale.isfinite()  # NaN may come with either sign
        assert torch.equal(same.codes[whole].float(), exact.codes[whole].float())
        agree(exact, quantize(x, kind, path="triton", config=Config(16, 1, 128, 3, 4), **apart), x)
        options = apart
    for way in WAYS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantizing, "lookup", lambda *_, way=way: way)
            agree(exact, quantize(x, kind, path="triton", **options), x)


BEFORES = ["rotate", "gelu", "gelu_tanh", "silu", "geglu", "layer_norm", "affine", "affine_silu"]


def before_of(kind: str, m: int, k: int, dtype: torch.dtype, device: str) -> Before:
    if kind == "rotate":
        size = 64 if k % 64 == 0 else 16
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
        return Before(kind, matrix=matrix.to(dtype).to(device), factor=size**-0.5)
    if kind not in ("layer_norm", "affine", "affine_silu"):
        return Before(kind)
    generator = torch.Generator().manual_seed(9)
    gain, offset = (torch.randn(-(-m // 5), k, generator=generator).to(device) for _ in range(2))
    return Before(kind, gain, offset, 5)


def fused(kind: str, dtype: torch.dtype, device: str) -> None:
    """What comes before, in the same launch; the interpreter's cast to bfloat16 does not round to nearest."""
    if kind in EACH:
        shared_rows_before(kind, dtype, device)
    for k, keep in ((192, False), (192, True), (80 if kind == "rotate" else 75, False)):
        x = drawn(18, 2 * k if kind == "geglu" else k, dtype).to(device) * 0.5
        x[1:3] = 0.1
        before = before_of(kind, 18, k, dtype, device)
        down = (torch.randn(RANK, k, generator=torch.Generator().manual_seed(1)) * 0.1).to(dtype).to(device)
        options = {"before": before, "down": down}
        exact = quantize(x, "int_group", path="reference", **options)
        ours = quantize(x, "int_group", path="triton", config=Config(16, 1, 64, 3, 4, keep=keep), **options)
        left, right = (rows.codes.float() * rows.scale[:, None] for rows in (exact, ours))
        assert (left - right).norm() < (8e-2 if dtype == torch.bfloat16 else 1e-2) * left.norm(), (
            kind,
            dtype,
            k,
        )
        assert (exact.low.float() - ours.low.float()).norm() < 1e-2 * exact.low.float().norm() + 1e-6


def shared_rows_before(kind: str, dtype: torch.dtype, device: str) -> None:
    """Many rows: an activation is found at both looks."""
    x = torch.randn(130, 400 if kind == "geglu" else 200, generator=torch.Generator().manual_seed(3))
    x = x.to(dtype).to(device)
    before = Before(kind)
    k = before.columns(x.shape[1])
    down = (torch.randn(RANK, k, generator=torch.Generator().manual_seed(1)) * 0.1).to(dtype).to(device)
    options = {"before": before, "down": down}
    exact = quantize(x, "int_group", path="reference", **options)
    # interpreted, each activation meets both types and both ways, one with the other
    for way in WAYS if device != "cpu" else [WAYS[dtype == torch.float16]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quantizing, "lookup", lambda *_, way=way: way)
            ours = quantize(x, "int_group", path="triton", **options)
        left, right = (rows.codes.float() * rows.scale[:, None] for rows in (exact, ours))
        assert (left - right).norm() < (8e-2 if dtype == torch.bfloat16 else 1e-2) * left.norm(), kind
        assert (exact.low.float() - ours.low.float()).norm() < 1e-2 * exact.low.float().norm()


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_compiled(kind: tuple[Kind, int]) -> None:
    check("cuda", [kind])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", BEFORES)
def test_compiled_with_what_comes_before(kind: str) -> None:
    fused(kind, torch.bfloat16, "cuda")


def test_a_rotation_is_that_of_the_layers() -> None:
    from quant.layers.rotations import kronecker, orthogonal

    x = torch.randn(5, 192, generator=torch.Generator().manual_seed(6))
    matrix = (orthogonal("hadamard", 64, torch.float32, x.device) * 8).round()
    exact = kronecker(x.unflatten(1, (-1, 64)), (("hadamard", 64),)).flatten(1)
    torch.testing.assert_close(Before("rotate", matrix=matrix, factor=0.125).reference(x), exact)
    with pytest.raises(
        ValueError, match=r"square matrix of 16, 32, 64, 128 that divides K = 192, got \(8, 8\)"
    ):
        quantize(x, "int_token", 8, before=Before("rotate", matrix=matrix[:8, :8].contiguous()))
    with pytest.raises(ValueError, match="a matrix belongs to rotate"):
        quantize(x, "int_token", 8, before=Before("gelu", matrix=matrix))


def test_layer_norm_is_that_of_torch() -> None:
    x = torch.randn(10, 48, generator=torch.Generator().manual_seed(5)) + 3
    scale, shift = torch.randn(2, 48), torch.randn(2, 48)
    before = Before("layer_norm", 1 + scale, shift, 5, 1e-6)
    normed = torch.nn.functional.layer_norm(x, (48,), eps=1e-6).reshape(2, 5, 48)
    adaptive = (normed * (1 + scale[:, None]) + shift[:, None]).flatten(0, 1)
    torch.testing.assert_close(before.reference(x), adaptive)
    plain = quantize(adaptive, "int_token", 8, path="reference")
    assert (quantize(x, "int_token", 8, before=before).codes - plain.codes).abs().max() <= 1


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_values_lie_within_half_a_step(kind: Kind, bits: int) -> None:
    x = torch.randn(9, 192, generator=torch.Generator().manual_seed(2))
    rows = quantize(x, kind, bits, path="reference")
    values = rows.codes.float() * rows.scale[:, None]
    step = x.abs().amax(1) / {"int_token": 2 ** (bits - 1) - 1, "e4m3_token": 14}.get(kind, 7)
    slack = 1.5 if kind == "pow2_group" else 1.1  # nearest powers of two clip the largest code a little
    assert ((values - x).abs() <= slack * step[:, None] / 2 + 1e-6).float().mean() > 0.97
    noise = 10 * torch.log10((values - x).square().sum() / x.square().sum()).item()
    assert noise < {"int_group": -17, "pow2_group": -16.5, "e4m3_token": -28}.get(
        kind, -38 if bits == 8 else -13
    )


def test_a_branch_fills_the_range_of_float8() -> None:
    up = torch.randn(24, 8, generator=torch.Generator().manual_seed(5)) * torch.logspace(-6, 4, 8)
    up[:, 3] = 0
    column = torch.rand(24, generator=torch.Generator().manual_seed(6)) + 0.1
    largest = (up / column[:, None] / balance_of(up, column)).abs().amax(0)
    assert largest[3] == 0 and ((128 <= largest) & (largest < 256))[torch.arange(8) != 3].all()


def test_two_floats_keep_eight_bits() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(3)) * 60
    high, rest = two_floats(x)
    apart = (high.float() + rest.float() - x).abs()
    assert (apart <= 2**-8 * x.abs() + 2**-10).all()


def test_a_group_of_zeros_does_not_widen_the_row() -> None:
    x = torch.randn(1, 128, generator=torch.Generator().manual_seed(4))
    alone = quantize(x[:, :64].contiguous(), "int_group", path="reference")
    x[:, 64:] = 0
    both = quantize(x, "int_group", path="reference")
    assert torch.equal(alone.scale, both.scale) and torch.equal(alone.codes, both.codes[:, :64])


def test_bad_input_is_named() -> None:
    x = torch.ones(2, 64)
    with pytest.raises(ValueError, match="kind must be one of int_token, int_group"):
        quantize(x, "int5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got \(64,\) torch.float32"):
        quantize(x[0], "int_token")
    with pytest.raises(ValueError, match=r"bits must be 2\.\.8, got 9"):
        quantize(x, "int_token", 9)
    with pytest.raises(ValueError, match="power of two from 16, got 20"):
        quantize(x, "int_token", down=torch.ones(20, 64))
    with pytest.raises(ValueError, match=r"inverse_smooth must be float32 of shape \(64,\)"):
        quantize(x, "int_token", inverse_smooth=torch.ones(3))
    with pytest.raises(ValueError, match="geglu halves its rows, got 63 columns"):
        quantize(x[:, :63], "int_token", before=Before("geglu"))
    gain = torch.ones(64, 2).T
    with pytest.raises(ValueError, match="gain must be a contiguous"):
        quantize(x, "int_token", before=Before("affine", gain, gain))


def test_given_scales_are_for_token_kinds_without_a_branch() -> None:
    x, scale = torch.ones(2, 64), torch.ones(2)
    quantize(x, "int_token", scale=scale)
    for kind, down in (("int_group", None), ("pow2_group", None), ("int_token", torch.ones(16, 64))):
        with pytest.raises(ValueError, match="given scales are for token kinds without a branch"):
            quantize(x, kind, down=down, scale=scale)


@pytest.mark.skipif(not paths.HAS_TRITON, reason="triton is not installed")
def test_columns_are_shared_where_nothing_needs_a_whole_row(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr("kernels.rows.many_kernels.quantize_many", lambda *_: ran.append("shared"))
    monkeypatch.setattr("kernels.rows.quantize_kernels.launch", lambda *_: ran.append("whole"))

    def way(
        x: torch.Tensor, down: torch.Tensor | None, kind: str = "none", config: Config | None = None
    ) -> str:
        before = before_of(kind, len(x), x.shape[1], x.dtype, "cpu")
        rest = (
            before.kind,
            before.gain,
            before.offset,
            before.rows,
            before.eps,
            before.matrix,
            before.factor,
        )
        quantizing._run(x, "int_group", 4, 64, None, 0.0, False, down, *rest, None, None, config)
        return ran.pop()

    x, down = torch.zeros(MANY_ROWS, 64).bfloat16(), torch.zeros(16, 64).bfloat16()
    for kind in BEFORES:
        assert way(x, down[:, :32] if kind == "geglu" else down, kind) == (
            "shared" if kind in EACH else "whole"
        ), kind
    assert way(x, down) == "shared"
    assert {way(x[1:], down), way(x, None), way(x, down, config=WAYS[0])} == {"whole"}
    assert way(torch.zeros(MANY_ROWS, 65).bfloat16()[:, :64], down) == "whole"


def test_steps_in_flight_fit_the_shared_memory() -> None:
    """Of every config that is tried, and of the default: at any rank, type and group."""
    configs = [*SPACES["quantize_many"], *(config for _, config in DEFAULTS["quantize_many"])]
    for config, rank, bytes_, tiles in itertools.product(configs, (16, 32, 128), (2, 4), (1, 2)):
        for step in {config.block_k, 128}:
            steps = steps_ahead(config, rank, step, bytes_, tiles)
            one = (tiles * config.block_m + rank) * step * bytes_
            assert 1 <= steps <= config.stages and (steps == 1 or steps * one <= SHARED)
            assert steps == config.stages or (steps + 1) * one > SHARED
    assert steps_ahead(Config(64, 512, 128, 4, 4), 32, 128, 2) == 4
    assert steps_ahead(Config(64, 512, 256, 4, 4), 32, 256, 4) == 2
    assert steps_ahead(Config(64, 512, 128, 4, 4), 32, 128, 4, 2) == 2  # values and gates in float32
