"""The Triton kernels against the references: interpreted on the CPU, compiled where there is a GPU.

The interpreter is chosen by an environment variable before the first import, hence a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

CHECK = """
import sys
import torch
from kernels import packing
from kernels.int8_linear import int8_linear
from kernels.quantize_rows import quantize_rows
from kernels.w4_linear import w4_linear

device = sys.argv[1]
generator = torch.Generator().manual_seed(0)
for m, k, n in [(64, 128, 64), (5, 123, 33), (1, 64, 1), (70, 7, 65)]:
    x = torch.randn(m, k, generator=generator).to(device)
    x[0] = 0
    w = torch.randn(n, k, generator=generator).to(device)
    bias = torch.randn(n, generator=generator).to(device)
    for bits in (4, 8):
        a, b = quantize_rows(x, bits, path="reference"), quantize_rows(x, bits, path="triton")
        assert b.path == "triton"
        apart = (a.scale - b.scale).abs().max().item(), (a.codes.int() - b.codes.int()).abs().max().item()
        assert apart == (0, 0), (m, k, bits, apart)
    rows, columns = quantize_rows(x, 8, path="reference"), quantize_rows(w, 8, path="reference")
    for given in (bias, None):
        args = (rows.codes, rows.scale, columns.codes, columns.scale, given)
        exact = int8_linear(*args, path="reference").value
        torch.testing.assert_close(int8_linear(*args, path="triton").value, exact, rtol=1e-6, atol=1e-6)
    codes = torch.randint(-8, 8, (n, k), generator=generator).to(torch.int8).to(device)
    for group in (16, 64):
        scale = torch.rand(n, -(-k // group), generator=generator).to(device).to(torch.bfloat16)
        args = (x, packing.pack(codes, 4), scale, group, bias)
        exact = w4_linear(*args, path="reference").value
        tolerance = 1e-6 * k**0.5
        ours = w4_linear(*args, path="triton").value
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=8 * tolerance)
print("equal")
"""


def check(repo: Path, device: str, interpret: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, device],
        cwd=repo,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-3000:]


@needs_triton
def test_interpreted_kernels_equal_the_references(repo: Path) -> None:
    check(repo, "cpu", "1")


@needs_triton
@pytest.mark.gpu
def test_compiled_kernels_equal_the_references(repo: Path) -> None:
    check(repo, "cuda", "0")
