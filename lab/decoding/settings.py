"""Settings of a reconstruction run: every field with its meaning and its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from brainit.config import PRESETS, BrainITConfig, parse_config

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]

#: Where a dataset is best started from, compared on training trials (``brainlab brain tune``);
#: anything given by hand comes first.
STARTING_POINTS: dict[str, dict[str, Any]] = {
    name: {
        "preset": "few",
        "structure": "posterior",
        "tokens": "picture",
        "external": 1000,
        # highest PixCorr of the 90 training trials, each left out; flat from 0.1 to 0.25:
        # benchmarks/results/digits69-strength.csv
        "strength": 0.15,
        "steps": 20,
        "guidance": 1.0,
        "n_samples": 8,
    }
    for name in ("digits69", "mat")
} | {
    "haxby2001": {"preset": "few"},
    # one person, grey natural pictures, 1,750 trials: what two cores do in a quarter of an hour
    "kay2008": {
        "preset": "small",
        "brain": {"clusters": {"method": "kmeans", "n_clusters": 64}},
        "structure": "blend",
        "noise_seeds": 1,
        "steps": 12,
    },
}


def _absolute(value: Any) -> Any:
    # The same folder named from elsewhere is the same setting.
    return str(Path(value).expanduser().resolve()) if isinstance(value, str | Path) else value


class Settings(BaseModel):
    """Base of all settings: unknown names are refused, values never change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReconstructConfig(Settings):
    """Everything that decides what a reconstruction run computes."""

    dataset: str = Field("simulated", description="name of the dataset (brainlab data list)")
    root: Annotated[str | None, BeforeValidator(_absolute)] = Field(
        None, description="folder or file of the dataset; default: its place in the user's cache"
    )
    subject: str | None = Field(None, description="subject within the dataset; default: the first")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="the dataset's own options (brainlab data info NAME)"
    )
    preset: Literal["small", "few", "large", "nsd"] = Field(
        "small",
        description="starting point of the settings under brain: few is for under about 200 trials, large "
        "for thousands",
    )
    external: int = Field(
        0,
        ge=0,
        le=100_000,
        description="pictures nobody saw that Brain-IT also learns from, with synthetic fMRI: drawn from "
        "the glyph prior, or from external_stimuli; those like a test picture are left out",
    )
    external_stimuli: Annotated[str | None, BeforeValidator(_absolute)] = Field(
        None,
        description="folder, parquet file or .npz of the external pictures",
    )
    network: Literal["trained", "shared"] = Field(
        "trained",
        description="trained: Brain-IT is trained on this dataset; shared: the network that ships, which "
        "learned from other (simulated) people, is adapted to the subject",
    )
    train_on: Literal["all", "one"] = Field(
        "all", description="train on all subjects of the dataset together, or on this one alone"
    )
    brain: BrainITConfig = Field(
        default_factory=lambda: parse_config(preset="small"),
        description="Brain-IT: sizes, training, care for small data",
    )
    denoiser: str = Field(
        "unet-64", description="shipped denoiser that draws the picture (brainlab zoo list)"
    )
    recipe: str = Field(
        "rtn-w8a8", description="how the denoiser is quantized (brainlab list presets), or none"
    )
    native: bool = Field(
        False,
        description="draw through the GPU's low-bit kernels, not simulated; refused where they cannot run",
    )
    seed: Seed = Field(0, description="fixes data order, initial weights and noise")
    noise_seeds: int = Field(5, ge=1, le=100, description="noise seeds over which the scores are averaged")
    structure: Literal["brainit", "blend", "posterior", "ridge", "none"] = Field(
        "brainit",
        description="where the structural picture comes from that diffusion starts at; blend: Brain-IT's and "
        "ridge's pictures, weighed by spatial frequency on left-out training trials; posterior: a prior "
        "over pictures weighed by an encoding model (ridge where the prior does not fit the stimuli)",
    )
    tokens: Literal["brainit", "picture"] = Field(
        "brainit",
        description="semantic condition: Brain-IT's tokens, or the tokens of the structural picture",
    )
    strength: float = Field(
        0.6, ge=0, le=1, description="share of the noise added to the structural picture; 1 ignores it"
    )
    steps: int = Field(
        20, ge=1, le=1_000, description="sampling steps from pure noise; strength shortens them"
    )
    guidance: float = Field(3.0, ge=0, le=30, description="classifier-free guidance; 1 is none")
    n_samples: int = Field(1, ge=1, le=256, description="samples averaged into one reconstruction")
    left_out: int = Field(
        64, ge=4, le=10_000,
        description="left-out training trials, at most, whose decoding recipes calibrate and train on; half "
        "calibrate, and of those that train see 30 of 100: hundreds for recipes that train",
    )  # fmt: skip
    voxel_encoder: Annotated[str | None, BeforeValidator(_absolute)] = Field(
        None,
        description="run of brainlab brain encode that knows the subject, for the score brain_correlation; "
        "default: a linear encoder, fitted on the way",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the networks run")
    bootstrap: int = Field(2_000, ge=100, le=100_000, description="resamples behind each interval")

    @model_validator(mode="before")
    @classmethod
    def _fill_brain(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("brain", {}), dict):
            return values
        values = overlay(STARTING_POINTS.get(str(values.get("dataset")), {}), values)
        preset = values.get("preset", "small")
        if preset not in PRESETS:
            return values  # the field's own check names what is allowed
        # One seed for the whole run: data order and initial weights follow it too.
        seed = str(values.get("seed", 0))  # a flag's text or a number
        valid = seed.isdigit() and int(seed) < 2**31  # else the field's own check says what is allowed
        start = overlay({"preset": preset, **PRESETS[preset]}, {"train": {"seed": int(seed) if valid else 0}})
        return {**values, "brain": overlay(start, values.get("brain", {}))}

    @model_validator(mode="after")
    def _fits_network(self) -> ReconstructConfig:
        if self.network == "shared" and self.structure not in _WITHOUT_MAPS:
            raise ValueError(
                f"the shared network predicts tokens alone, so structure {self.structure!r} cannot be had "
                f"with it; allowed: {', '.join(_WITHOUT_MAPS)}"
            )
        return self


# structural pictures that need no maps predicted by a network trained on the dataset
_WITHOUT_MAPS = ("ridge", "posterior")


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings ``base`` with ``changes`` laid over them, section by section."""
    merged = dict(base)
    for name, value in changes.items():
        below = merged.get(name)
        merged[name] = (
            overlay(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return merged
