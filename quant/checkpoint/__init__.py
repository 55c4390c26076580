"""One safetensors file for a quantized model: packed codes, plain scales, side branches, a JSON header."""

from quant.checkpoint.reading import load, read_header
from quant.checkpoint.writing import export
from quant.interop.nunchaku_files import export_nunchaku, read_nunchaku

__all__ = ["export", "export_nunchaku", "load", "read_header", "read_nunchaku"]
