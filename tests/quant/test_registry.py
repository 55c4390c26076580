"""Methods and adapters as data."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from pydantic import BaseModel, Field

import quant
from quant import registry
from quant.registry import RUN, Method, MethodInfo


class _Config(BaseModel):
    strength: float = Field(default=1.0, description="how much")
    steps: int = Field(default=1, json_schema_extra=RUN, description="how long")


@pytest.mark.parametrize("name", quant.list_methods())
def test_a_method_is_data_and_its_maths(name: str) -> None:
    method = quant.get_method(name)
    assert method.name == name and method is quant.get_method(name)
    maths = method.load()
    assert callable(maths.formats) and callable(maths.core)
    assert callable(getattr(maths, "training", None)) == method.info.trains
    assert set(method.whole_run) <= set(method.config.model_fields)


def test_adapters_are_a_second_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(quant.InputError, match="unknown adapter 'mark', known: watermark"):
        registry.get_adapter("mark")
    info = MethodInfo(
        title="Mark", paper="", year=2025, bits="", needs_calibration=False, needs_gradients=True, native=()
    )
    folder, maths = ModuleType("quant.adapters.mark"), ModuleType("quant.adapters.mark.core")
    folder.ADAPTER = Method("mark", _Config, info, core="quant.adapters.mark.core")
    monkeypatch.setitem(sys.modules, folder.__name__, folder)
    monkeypatch.setitem(sys.modules, maths.__name__, maths)
    monkeypatch.setattr(registry, "ADAPTERS", ("mark",))
    assert registry.list_adapters("m*") == ["mark"] and registry.list_adapters("x*") == []
    found = registry.get_adapter("mark")
    assert found.load() is maths and found.whole_run == ("steps",)
    assert "mark" not in quant.list_methods()


def test_settings_of_a_layer() -> None:
    config = _Config(strength=2.0)
    assert registry.settings_of(_Config, config, {}) is config
    assert registry.settings_of(_Config, config, {"steps": 3}) == _Config(strength=2.0, steps=3)
