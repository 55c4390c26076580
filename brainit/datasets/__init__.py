"""Datasets: one adapter each, all yielding the same ``Subject``."""

from brainit.datasets.findings import Finding, check
from brainit.datasets.registry import (
    DatasetCard,
    card,
    default_root,
    describe,
    fetch,
    list_datasets,
    open,
    subjects,
)

__all__ = [
    "DatasetCard",
    "Finding",
    "card",
    "check",
    "default_root",
    "describe",
    "fetch",
    "list_datasets",
    "open",
    "subjects",
]
