"""digits69: real fMRI of one person looking at handwritten 6s and 9s (van Gerven et al. 2010)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainit.datasets import mat
from brainit.datasets.cards import CARDS
from brainit.datasets.files import clean
from brainit.datasets.files.presence import there
from brainit.errors import MissingDataError
from brainit.subject import Subject

FILE = "digit69_28x28.mat"
LABELS = {1: "6", 2: "9"}


def subjects(root: Path) -> list[str]:
    """Return the one subject."""
    _file(root)
    return ["S1"]


def load(root: Path, subject: str | None = None, **options: Any) -> Subject:
    """Read ``digit69_28x28.mat`` in folder ``root`` (or ``root`` itself) as a Subject."""
    clean.pick_subject(subject, ["S1"], root)
    about = {
        "source": "van Gerven et al. 2010, voxels of V1 to V3 (positions not in the file)",
        "terms": _card()["terms"],
    }
    return mat.load_file(_file(root), dataset="digits69", label_names=LABELS, info=about, **options)


def _card() -> dict[str, Any]:
    return next(card for card in CARDS if card["name"] == "digits69")


def _file(root: Path) -> Path:
    if not there(root) and not there(root / FILE):
        raise MissingDataError(f"dataset 'digits69': {root} holds no {FILE}; {_card()['how']}")
    return mat.find_file(root, FILE)
