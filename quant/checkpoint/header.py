"""The JSON header in the safetensors metadata, and the digest that guards it and the tensors.

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

from quant.checkpoint.architecture import Architecture
from quant.errors import InputError
from quant.plans.ledger import Ledger

KEY = "brainit_lab_quant"
FORMAT = 2
"""1: the digest left the header out, and the architecture was not told."""


class LayerParts(BaseModel):
    """How to rebuild one quantized layer around its tensors."""

    model_config = ConfigDict(extra="forbid", strict=True)
    dtype: str = Field(description="of the decoded weight")
    weight_params: list[str]
    activation_params: list[str] = []
    timesteps: bool = False
    transform: dict[str, Any] | None = None
    branch: dict[str, Any] | None = None


class Header(BaseModel):
    """Everything in the file that is not a tensor."""

    model_config = ConfigDict(extra="forbid", strict=True)
    format: int = FORMAT
    architecture: Architecture
    ledger: dict[str, Any]
    parts: dict[str, LayerParts]
    digest: str = Field(default="", description="sha256 over this header without it, and all tensors")

    def to_text(self, signed: bool = True) -> str:
        """Compact JSON, sorted; without the digest if not `signed`."""
        data = self.model_dump(mode="json", exclude_defaults=True, exclude=None if signed else {"digest"})
        return json.dumps({"format": self.format, **data}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_metadata(cls, metadata: dict[str, str] | None, path: object) -> Header:
        """Parse, with one-line errors; the digest is not checked, since that takes the tensors."""
        text = (metadata or {}).get(KEY)
        if text is None:
            raise InputError(
                f"{path} is not a quantized checkpoint of this project: its metadata has no {KEY!r}"
            )
        try:
            data = json.loads(text)
            number = data.get("format")
            if type(number) is not int or number == FORMAT:
                return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            what = f"{where}: {first['msg'].lower()}" if where else first["msg"].lower()
            raise InputError(f"{path}: damaged header ({what}); export it again") from None
        except (ValueError, AttributeError, RecursionError):
            raise InputError(f"{path}: damaged header (not a JSON object); export it again") from None
        raise InputError(
            f"{path} has format {number}, this version reads {FORMAT}: quantize the model and export it again"
        )

    def read_ledger(self, path: object) -> Ledger:
        """Read the ledger back."""
        try:
            ledger: Ledger = Ledger.from_dict(self.ledger)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise InputError(f"{path}: damaged ledger in the header; export the model again") from None
        names = [record.name for record in ledger.layers]
        if len(set(names)) < len(names):
            raise InputError(f"{path}: damaged ledger, a layer is listed twice; export the model again")
        return ledger


def digest(header: Header, tensors: dict[str, Tensor]) -> str:
    """Hash of the header without its digest, and of names, types, shapes and values of all tensors."""
    sha = hashlib.sha256(header.to_text(signed=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
