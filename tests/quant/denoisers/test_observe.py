"""`quant.observe` on a tiny model of every family."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

import quant
from quant.denoisers.inventory import find_layers

FAMILIES = ("unet", "unconditional", "dit", "pixart", "sd3", "flux")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_seen(
    name: str, family: SimpleNamespace, store: Callable[[str], quant.Trajectories]
) -> None:
    model = family.build(name)
    found = quant.observe(model, store(name), samples=2)
    never = set(found.settings["never_ran"])
    assert set(found.inputs) == {layer.name for layer in find_layers(model)} - never
    assert len(never) <= 0.1 * len(found.inputs), never
    rows = found.layer_table("absmax")
    assert all(row["values"] > 0 and row["absmax"] > 0 for row in rows)
    assert found.attention and all(abs(s.mass.sum(1) - 1).max() < 1e-4 for s in found.attention.values())
    kinds = {s.kind for s in found.attention.values()}
    assert ("cross" in kinds) == (name in ("unet", "pixart"))
