"""What the jobs of the watermark share: where key, message and extractor come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import setting

RATE = 1e-6


class OfKey(contract.Settings):
    """A key and what reads it; without an answer the shipped ones."""

    key: Path | None = setting(None, "LoRA with the message, as watermark train writes it; none: the shipped")
    extractor: Path | None = setting(None, "the network that reads; none: the shipped")


def files(settings: OfKey) -> tuple[Path, Path]:
    """Return the files of key and extractor."""
    from lab.zoo.watermark.files import EXTRACTOR, KEY

    return settings.key or KEY, settings.extractor or EXTRACTOR


def open_key(settings: OfKey, device: str = "cpu") -> tuple[Any, Any]:
    """Return the extractor and the key; refuses damaged ones, and a key of another extractor."""
    from lab.zoo.watermark.files import load_extractor, load_key

    key, extractor = files(settings)
    reader = load_extractor(extractor, device)
    return reader, load_key(key, extractor, reader.config["bits"])


def refuse_same_names(paths: tuple[Path, ...]) -> None:
    """Refuse two files that would be written under one name."""
    names = [path.stem for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"two pictures are named {twice!r}: results are stored by name, so give them apart")
