"""One safetensors file for a quantized model: packed codes, plain scales, side branches, a JSON header."""

from quant.checkpoint.reading import load, read_header
from quant.checkpoint.writing import export

__all__ = ["export", "load", "read_header"]
