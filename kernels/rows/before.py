"""What a layer does to its input just before it is quantized, so that the 16-bit result is never written.

================  ====================================================================================
kind              value
================  ====================================================================================
``none``          x
``gelu``          x Phi(x)
``gelu_tanh``     the same with tanh for Phi, as FLUX has it
``silu``          x sigmoid(x)
``geglu``         x_k gelu(x_(K+k)): rows of 2 K values give K
``layer_norm``    (x - mean) / sqrt(variance + eps) gain + offset, over the row; adaptive norms give one
                  gain (1 + scale) and offset a sample
``affine``        x gain + offset: a group norm whose statistics are known (`kernels.rows.group_norm`)
``affine_silu``   silu of that
``rotate``        factor x M^T on every block of B neighbours, M of shape (B, B): a Hadamard matrix of +-1
                  with factor B^(-1/2), or the innermost factor of a Kronecker product
================  ====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BEFORE = {
    "none": 0, "gelu": 1, "gelu_tanh": 2, "silu": 3, "geglu": 4, "layer_norm": 5, "affine": 6,
    "affine_silu": 7, "rotate": 8,
}  # fmt: skip
BLOCKS = (16, 32, 64, 128)
_WITH_GAIN = ("layer_norm", "affine", "affine_silu")


@dataclass(frozen=True)
class Before:
    """One of the kinds above.

    Attributes
    ----------
    kind : str
    gain, offset : tensors of shape (S, K)
        Of the kinds that have them.
    rows : int
        Neighbouring rows of the input that share a gain (tokens or pixels of a sample).
    eps : float
    matrix : tensor of shape (B, B)
        Of ``rotate``, in the type of the input; B is 16, 32, 64 or 128.
    factor : float
        Of ``rotate``.
    """

    kind: str = "none"
    gain: Tensor | None = None
    offset: Tensor | None = None
    rows: int = 1
    eps: float = 1e-6
    matrix: Tensor | None = None
    factor: float = 1.0

    @property
    def block(self) -> int:
        """Neighbours that are mixed; 1 where none are."""
        return 1 if self.matrix is None else self.matrix.shape[0]

    def columns(self, columns: int) -> int:
        """Values a row hands on."""
        return columns // 2 if self.kind == "geglu" else columns

    def check(self, x: Tensor) -> None:
        """Refuse what does not fit `x`, a (rows, columns)."""
        if self.kind not in BEFORE:
            raise ValueError(f"quantize: before must be one of {', '.join(BEFORE)}, got {self.kind!r}")
        if self.kind == "geglu" and x.shape[1] % 2:
            raise ValueError(f"quantize: geglu halves its rows, got {x.shape[1]} columns")
        if (self.gain is not None) != (self.kind in _WITH_GAIN) or (self.offset is None) != (
            self.gain is None
        ):
            raise ValueError(f"quantize: gain and offset belong to {', '.join(_WITH_GAIN)}, and there both")
        self._check_matrix(x)
        if self.rows < 1:
            raise ValueError(f"quantize: at least one row shares a gain, got {self.rows}")
        if self.gain is None or self.offset is None:
            return
        wanted = (-(-x.shape[0] // self.rows), x.shape[1])
        for name, tensor in (("gain", self.gain), ("offset", self.offset)):
            if tuple(tensor.shape) != wanted or not tensor.is_contiguous() or tensor.device != x.device:
                raise ValueError(
                    f"quantize: {name} must be a contiguous {wanted} on {x.device}, "
                    f"got {tuple(tensor.shape)} on {tensor.device}"
                )

    def _check_matrix(self, x: Tensor) -> None:
        if (self.matrix is not None) != (self.kind == "rotate"):
            raise ValueError("quantize: a matrix belongs to rotate, and there only")
        if self.matrix is None:
            return
        size, blocks = tuple(self.matrix.shape), ", ".join(map(str, BLOCKS))
        if size not in [(block, block) for block in BLOCKS] or x.shape[1] % size[0]:
            raise ValueError(
                f"quantize: rotate takes a square matrix of {blocks} that divides K = {x.shape[1]}, "
                f"got {size}"
            )
        if self.matrix.dtype != x.dtype or self.matrix.device != x.device or not self.matrix.is_contiguous():
            raise ValueError(
                f"quantize: the matrix must be a contiguous {x.dtype} on {x.device}, "
                f"got {self.matrix.dtype} on {self.matrix.device}"
            )

    def reference(self, x: Tensor) -> Tensor:
        """Plain torch in float32, rounded to the type of `x`."""
        wide = x.float()
        if self.kind == "none":
            return x
        if self.kind in ("gelu", "gelu_tanh"):
            out = torch.nn.functional.gelu(wide, approximate="tanh" if self.kind == "gelu_tanh" else "none")
        elif self.kind == "silu":
            out = torch.nn.functional.silu(wide)
        elif self.kind == "geglu":
            value, gate = wide.chunk(2, 1)
            out = value * torch.nn.functional.gelu(gate).to(x.dtype).float()
        elif self.matrix is not None:
            out = self.factor * (wide.unflatten(1, (-1, self.block)) @ self.matrix.float().T).flatten(1)
        else:
            out = self._affine(wide)
        return out.to(x.dtype)

    def _affine(self, wide: Tensor) -> Tensor:
        assert self.gain is not None and self.offset is not None  # as `check` saw to
        if self.kind == "layer_norm":
            wide = torch.nn.functional.layer_norm(wide, wide.shape[1:], eps=self.eps)
        gain, offset = (
            t.float().repeat_interleave(self.rows, 0)[: wide.shape[0]] for t in (self.gain, self.offset)
        )
        out = wide * gain + offset
        return torch.nn.functional.silu(out) if self.kind == "affine_silu" else out
