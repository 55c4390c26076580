"""The JSON header in the safetensors metadata, and the digest that guards the tensors.

One metadata key only (`KEY`): safetensors does not promise an order between several, and equal models must
give equal bytes. Times and dates stay out for the same reason.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from quant.errors import InputError
from quant.ledger import Ledger

KEY = "brainit_lab_quant"
FORMAT = 1


class LayerParts(BaseModel):
    """How to rebuild one quantized layer around its tensors."""

    model_config = ConfigDict(extra="forbid")
    dtype: str = Field(description="of the decoded weight")
    weight_params: list[str]
    activation_params: list[str] = []
    timesteps: bool = False
    transform: dict[str, Any] | None = None
    branch: dict[str, Any] | None = None


class Header(BaseModel):
    """Everything in the file that is not a tensor."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    ledger: dict[str, Any]
    parts: dict[str, LayerParts]
    digest: str = Field(description="sha256 over names, types, shapes and values of all tensors")

    def to_text(self) -> str:
        """Compact JSON, sorted."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps({"format": self.format, **data}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_metadata(cls, metadata: dict[str, str] | None, path: object) -> Header:
        """Parse, with one-line errors."""
        text = (metadata or {}).get(KEY)
        if text is None:
            raise InputError(
                f"{path} is not a quantized checkpoint of this project: its metadata has no {KEY!r}"
            )
        try:
            header = cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{path}: damaged header ({error.errors()[0]['msg'].lower()}); export it again"
            ) from None
        if header.format != FORMAT:
            raise InputError(
                f"{path} has format {header.format}, this version reads {FORMAT}: export it again"
            )
        return header

    def read_ledger(self, path: object) -> Ledger:
        """Read the ledger back."""
        try:
            return Ledger.from_dict(self.ledger)
        except (ValidationError, KeyError, IndexError, TypeError):
            raise InputError(f"{path}: damaged ledger in the header; export the model again") from None


def digest(tensors: dict[str, Tensor]) -> str:
    """Hash of all tensors, in name order."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
