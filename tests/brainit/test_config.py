"""Settings: bounds, one-line errors, round trip."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from brainit.config import PRESETS, BrainITConfig, override, parse_config
from brainit.errors import InputError


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": {"width": 4}}, "model.width = 4"),
        ({"model": {"width": 100, "heads": 8}}, "not a multiple"),
        ({"train": {"validation": 0}}, "train.validation = 0"),
        ({"train": {"lr": -1}}, "train.lr"),
        ({"clusters": {"method": "som"}}, "clusters.method = 'som'"),
        ({"care": {"calibrate": "best"}}, "care.calibrate"),
        ({"care": {"ridge": False, "residual_on_ridge": True}}, "need ridge"),
        ({"train": {"epoch": 3}}, "train.epoch"),
        ({"train": 3}, "train = 3"),
    ],
)
def test_bad_values_give_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        parse_config(values)
    assert "\n" not in str(error.value)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(InputError, match=r"\['few', 'large', 'nsd', 'small'\]"):
        parse_config(preset="huge")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_survive_json(preset: str) -> None:
    config = parse_config(preset=preset)
    assert BrainITConfig.model_validate_json(config.model_dump_json()) == config


def test_override_keeps_the_rest() -> None:
    config = override(parse_config({"train": {"epochs": 7}}), {"train": {"batch": 3}})
    assert (config.train.epochs, config.train.batch) == (7, 3)


def test_published_sizes_are_the_nsd_preset() -> None:
    config = parse_config(preset="nsd")
    assert (config.model.width, config.model.depth, config.train.voxel_draws) == (512, 5, 15_000)


def test_every_field_has_help() -> None:
    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)
            else:
                assert field.description, name

    walk(BrainITConfig)
