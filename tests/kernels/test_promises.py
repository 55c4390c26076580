"""What every operation promises: refusals that name it, the same bytes again, and no NaN lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from kernels import paths
from kernels.attention.log_attention import log_attention
from kernels.images.conv2d import conv2d
from kernels.images.group_norm import group_norm, sample_scale
from kernels.products.expand import expand
from kernels.products.expand_half import expand_half
from kernels.products.expand_table import expand_table, fp4_table
from kernels.products.few_rows import few_rows
from kernels.products.gemm import gemm
from kernels.products.lowrank_linear import lowrank_linear, prepare
from kernels.registered import operation
from kernels.rows.quantize import quantize

FLOAT = (
    "quantize", "few_rows", "lowrank_linear", "lowrank_linear of many rows", "table", "given scale",
    "log_attention", "group_norm",
)  # fmt: skip
"""Operations whose input is floating point: a NaN in it comes out. Codes cannot hold one; their scales do."""


def calls(device: str) -> dict[str, Callable[..., torch.Tensor]]:
    """Each operation as a function of its path, and of its first input where that is floating point."""
    generator = torch.Generator().manual_seed(0)

    def half(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).half().to(device)

    def whole(*size: int) -> torch.Tensor:
        return torch.randint(-9, 9, size, generator=generator, dtype=torch.int8).to(device)

    packed = torch.randint(0, 256, (24, 32), generator=generator, dtype=torch.uint8).to(device)
    fine = torch.randint(0, 3, (24, 1), generator=generator, dtype=torch.int8).to(device)
    column, row = (torch.rand(size, generator=generator).to(device) for size in (24, 5))
    down, up = half(16, 64), half(24, 16)
    weight = prepare(packed, fine, column, 64, 64, 4, None, down, up)
    a, b, image, kernel = whole(5, 64), whole(24, 64), whole(1, 4, 4, 16), whole(24, 3, 3, 16)
    x, q, k, pixels = half(140, 64), half(1, 2, 6, 16), half(1, 2, 9, 16), half(2, 9, 16)

    def normed(path: str, x: torch.Tensor = pixels) -> torch.Tensor:
        before = group_norm(x, 4, path=path)
        rows = quantize(
            x.flatten(0, 1), "e4m3_token", before=before, scale=sample_scale(x, before, 448, path), path=path
        )
        return rows.codes.float() * rows.scale[:, None]

    def rows(path: str, x: torch.Tensor = x) -> torch.Tensor:
        found = quantize(x, "int_group", down=down, path=path)
        return found.codes.float() * found.scale[:, None]

    def table(path: str, x: torch.Tensor = x[:5]) -> torch.Tensor:
        codes = quantize(x, "e4m3_token", path=path)
        operand = expand_table(packed, fp4_table(device=device), 4, 64, path=path).value
        return gemm(codes.codes, codes.scale, operand, column, path=path).value

    def given(path: str, x: torch.Tensor = x[:5]) -> torch.Tensor:
        found = quantize(x, "e4m3_token", scale=row, path=path)
        return found.codes.float() * found.scale[:, None]

    return {
        "quantize": rows,
        "table": table,
        "given scale": given,
        "few_rows": lambda path, x=x[:5]: few_rows(x, packed, fine, 64, column, path=path).value,
        "lowrank_linear": lambda path, x=x[:9]: lowrank_linear(x, weight, path).value,
        "lowrank_linear of many rows": lambda path, x=x: lowrank_linear(x, weight, path).value,
        "log_attention": lambda path, x=q: log_attention(x, k, k, sink=0, path=path).value,
        "group_norm": normed,
        "gemm": lambda path: gemm(a, row, b, column, path=path).value,
        "conv2d": lambda path: conv2d(image, row[:1], kernel, column, path=path).value,
        "expand": lambda path: expand(packed, fine, 64, path=path).value,
        "expand_half": lambda path: expand_half(packed, fine, 64, 64, column, path=path).value,
        "expand_table": lambda path: expand_table(packed, fp4_table(device=device), 4, 64, path=path).value,
    }


def check(device: str) -> None:
    """On the kernels' path: the same bytes twice, and a NaN comes out where it went in."""
    for name, call in calls(device).items():
        once, again = call("triton"), call("triton")
        assert torch.equal(once.float(), again.float()), name
        if name in FLOAT:
            lost(name, call, "triton")
            infinite(name, call)


def lost(name: str, call: Callable[..., torch.Tensor], path: str) -> None:
    x = call.__defaults__[0].clone()
    x.view(-1)[3] = float("nan")
    out = call(path, x).float()
    rows = out.flatten(0, -2)
    # a given scale is that of rows without a NaN: the number itself stays one
    assert rows[0, 3].isnan() if name == "given scale" else rows[0].isnan().all(), name
    # probabilities of an image share a scale; elsewhere other rows or images do not hear of it
    assert name == "log_attention" or not rows[-1].isnan().any(), name


def infinite(name: str, call: Callable[..., torch.Tensor]) -> None:
    """An infinity comes out as the reference has it: as one, as NaN, or cut off by a given scale."""
    for value in (float("inf"), float("-inf")):
        x = call.__defaults__[0].clone()
        x.view(-1)[3] = value
        ours, exact = call("triton", x).float(), call("reference", x).float()
        assert torch.equal(ours.isnan(), exact.isnan()), name
        assert torch.equal(ours.isposinf(), exact.isposinf()), name
        assert torch.equal(ours.isneginf(), exact.isneginf()), name
        assert exact.isfinite().all() == (name == "given scale"), name


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_compiled() -> None:
    check("cuda")


@pytest.mark.gpu
def test_compiled_on_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    with torch.cuda.device(0):
        check("cuda:1")


class Elsewhere:
    """A tensor on the second GPU."""

    is_cuda = True

    def get_device(self) -> int:
        return 1


def test_kernels_are_launched_where_their_tensors_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    current = [0]

    @contextmanager
    def there(index: int) -> Iterator[None]:
        current.append(index)
        yield
        current.pop()

    monkeypatch.setattr("torch.cuda.current_device", lambda: current[-1])
    monkeypatch.setattr("torch.cuda.device", there)
    found = operation("where", "(Tensor x) -> Tensor", torch.empty_like)(lambda x: torch.tensor(current))
    assert found(Elsewhere()).tolist() == [0, 1] and found(torch.ones(1)).tolist() == [0]
    current.append(1)
    assert found(Elsewhere()).tolist() == [0, 1]


@pytest.mark.parametrize("name", FLOAT)
def test_a_nan_is_not_lost_on_the_way_without_a_gpu(name: str) -> None:
    lost(name, calls("cpu")[name], "reference")


@pytest.mark.parametrize(
    "name", sorted(set(calls("cpu")) - {"lowrank_linear", "lowrank_linear of many rows"})
)
def test_kernels_are_refused_where_they_cannot_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = calls("cpu")[name]
    with pytest.raises(RuntimeError, match="the tensors are on cpu; use path='reference'"):
        call("triton")
    monkeypatch.setattr(paths, "HAS_TRITON", False)
    with pytest.raises(RuntimeError, match="triton is not installed"):
        call("triton")


def test_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "HAS_TRITON", True)
    monkeypatch.setattr(paths, "capability", lambda device: (8, 6))
    why = paths.obstacle(torch.device("cuda"), paths.FLOAT8)
    assert why == "the GPU has compute capability 8.6, this takes 8.9"
    assert not paths.obstacle(torch.device("cuda"))
    monkeypatch.setattr(paths, "capability", lambda device: (8, 9))
    assert not paths.obstacle(torch.device("cuda"), paths.FLOAT8)


def test_tensors_on_two_devices_are_refused() -> None:
    there = torch.ones(24, device="meta")
    packed, fine = torch.zeros(24, 32, dtype=torch.uint8), torch.zeros(24, 1, dtype=torch.int8)
    codes, x = torch.zeros(4, 64, dtype=torch.int8), torch.zeros(4, 64)
    head, image, kernel = (
        x.reshape(1, 1, 4, 64),
        codes.reshape(1, 2, 2, 64),
        torch.zeros(24, 1, 1, 64, dtype=torch.int8),
    )
    found = {
        "gemm": lambda: gemm(codes, torch.ones(4), torch.zeros(24, 64, dtype=torch.int8), there),
        "few_rows": lambda: few_rows(x, packed, fine, 64, there),
        "expand": lambda: expand(packed, fine.to("meta"), 64),
        "expand_half": lambda: expand_half(packed, fine, 64, 64, there),
        "expand_table": lambda: expand_table(packed, fp4_table(device="meta"), 4, 64),
        "quantize": lambda: quantize(x, "int_token", 8, down=torch.ones(16, 64, device="meta")),
        "conv2d": lambda: conv2d(image, torch.ones(1), kernel, there),
        "log_attention": lambda: log_attention(head, head, head.to("meta")),
        "group_norm": lambda: group_norm(x.reshape(1, 4, 64), 4, there.new_ones(64), there.new_ones(64)),
    }  # fmt: skip
    for name, call in found.items():
        with pytest.raises(ValueError, match=f"{name}: .*must lie on cpu, got one on meta"):
            call()


def test_memory_that_does_not_suffice_names_the_operation() -> None:
    def greedy(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64 GiB\nmore")

    register = operation("greedy", "(Tensor x) -> Tensor", lambda x: x.new_empty(2**20, dtype=torch.float32))
    with pytest.raises(
        torch.OutOfMemoryError, match=r"greedy: out of memory; its result alone takes 4\.0 MiB"
    ):
        register(greedy)(torch.ones(1))


def test_only_calls_that_nobody_else_sees_pass_the_dispatcher_by() -> None:
    seen = []

    def double(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x * 2

    call = operation("seen_double", "(Tensor x) -> Tensor", torch.empty_like)(double)
    assert call(torch.ones(2)).tolist() == [2.0, 2.0] and len(seen) == 1
    with FakeTensorMode():
        assert isinstance(call(torch.ones(2)), FakeTensor) and len(seen) == 1  # its shape only
    weight = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="autograd"):  # not a result without its gradient
        call(weight).sum().backward()
    with torch.no_grad():
        assert call(weight).tolist() == [2.0, 2.0]
    operations = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            operations.append(function)
            return torch.zeros(2)

    call(torch.ones(2).as_subclass(Watched))
    assert operations == [torch.ops.brainlab.seen_double.default]
