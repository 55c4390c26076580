"""Other people's files: foreign LoRAs, and the layout of the original 4-bit engine for SVDQuant."""

from quant.interop.nunchaku_files import export_nunchaku, read_nunchaku

__all__ = ["export_nunchaku", "read_nunchaku"]
