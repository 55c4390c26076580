"""Settings of the watermark."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WatermarkConfig(BaseModel):
    """A fixed message in low-rank factors of the decoder's last stage, and the network that reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    bits: int = Field(default=48, ge=8, le=128, description="length of the message")
    rank: int = Field(default=8, ge=1, le=64, description="of the low-rank factors; at most the layer's")
    alpha: float = Field(default=32.0, gt=0, le=1024, description="factors count alpha / rank times")
    layers: tuple[str, ...] = Field(
        default=("decoder.5", "decoder.[789].conv?", "decoder.11"),
        description="wildcards of the convolutions that get factors",
    )
    extractor_batch: int = Field(default=64, ge=2, le=4096, description="pictures a step, extractor")
    extractor_rate: float = Field(default=1.5e-3, gt=0, le=1, description="peak learning rate, extractor")
    extractor_steps: int = Field(default=20_000, ge=1, description="steps of the extractor at most")
    mapper_rank: int = Field(
        default=48, ge=1, le=512, description="rank of the factors that the extractor is trained on"
    )
    first_psnr: float = Field(default=22.0, ge=5, le=60, description="strength that training begins at, dB")
    last_psnr: float = Field(default=33.0, ge=5, le=60, description="strength that training ends at, dB")
    distorted: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="share of pictures that are distorted, once training is far enough",
    )
    key_batch: int = Field(default=64, ge=2, le=4096, description="pictures a step, key")
    key_rate: float = Field(default=1e-3, gt=0, le=1, description="peak learning rate, key")
    key_steps: int = Field(default=3000, ge=1, description="steps of a key at most")
    sharpness: float = Field(
        default=2.0, gt=0, le=100, description="factor on whitened outputs before the cross-entropy"
    )
    patience: int = Field(default=5, ge=1, description="times in a row that a target is met before it rises")
    increment: float = Field(default=0.3, gt=0, le=10, description="what a loss weight grows by, gamma")
    psnr_target: float = Field(default=30.0, ge=5, le=60, description="first target of the picture, dB")
    psnr_step: float = Field(default=2.5, ge=0, le=20, description="what the picture's target rises by, dB")
    psnr_cap: float = Field(default=32.8, ge=5, le=60, description="highest target of the picture, dB")
    match_target: float = Field(default=0.9, ge=0.5, le=1, description="first target of matching bits, share")
    match_step: float = Field(default=0.08, ge=0, le=0.5, description="what that target rises by")
    match_cap: float = Field(
        default=0.979, ge=0.5, lt=1,
        description="highest target of matching bits; at 1 it could not be met for ever",
    )  # fmt: skip
    similarity: float = Field(
        default=0.1, ge=0, le=10, description="weight of 1 - SSIM beside the squared error at 30 dB"
    )
