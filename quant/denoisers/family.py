"""What each family of diffusers denoisers takes and gives, by its config; `families` calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant.errors import InputError

MAX_SIDE = 1 << 16
"""Largest sample_size that is believed."""


class Family:
    """A denoiser that takes tokens as ``encoder_hidden_states`` or labels as ``class_labels``; the base.

    Attributes
    ----------
    timestep_unit : float
        Scheduler timesteps in one unit of the model's own ``timestep`` argument.
    axes : int
        Dimensions of one sample: channels, height and width, with frames after the channels in video.
    """

    timestep_unit = 1.0
    axes = 3

    def extras(self, get: Any) -> dict[str, int]:
        """Name the inputs beside the tokens, with the numbers each has, by config."""
        return {}

    def width(self, get: Any) -> int | None:
        """Features of a token; None without tokens."""
        width = get("encoder_hid_dim") or get("cross_attention_dim")
        if isinstance(width, (list, tuple)) and len(set(width)) == 1:  # one for each block, all the same
            width = width[0]
        return width if isinstance(width, int) else None

    def labels(self, get: Any) -> int | None:
        """Count the class labels it knows; None if it takes none."""
        return None

    def channels(self, get: Any) -> int:
        """Channels of a sample."""
        return int(get("in_channels"))

    def usual(self, get: Any) -> tuple[int, ...] | None:
        """Shape of a sample to count with where the config does not say any; None: none is usual."""
        return None

    def shape(self, get: Any) -> tuple[int, ...] | None:
        """(C, H, W) of a sample, or (C, F, H, W); None if the config does not say."""
        channels, side = get("in_channels"), get("sample_size")
        if not isinstance(channels, int) or side is None:
            return None
        sides = [side, side] if isinstance(side, int) else side
        good = isinstance(sides, (list, tuple)) and len(sides) == 2
        if not good or not all(isinstance(n, int) and 1 <= n <= MAX_SIDE for n in sides):
            raise InputError(
                f"the model's config has sample_size = {side!r:.60}: it must be a whole number from 1 to "
                f"{MAX_SIDE}, or (height, width); repair config.json"
            )
        return channels, sides[0], sides[1]

    def enter(self, x: Tensor) -> Tensor:
        """(n, C, H, W) as the model takes it."""
        return x

    def leave(self, out: Tensor, x: Tensor) -> Tensor:
        """Turn the model's output into (n, C, H, W); of mean and variance (2 C channels) the mean."""
        return out[:, : x.shape[1]] if out.ndim == 4 and out.shape[1] == 2 * x.shape[1] else out

    def keywords(self, x: Tensor, tokens: Tensor | None, extras: dict[str, Tensor]) -> dict[str, Any]:
        """Keyword arguments beside the sample and the timestep."""
        return {} if tokens is None else {"encoder_hidden_states": tokens}

    def places(self, get: Any, x: Tensor) -> dict[str, Any]:
        """Keyword arguments that say where in a sample its tokens are, for models that do not count."""
        return {}


class Labelled(Family):
    """UNet2DModel and DiT: class labels, or nothing."""

    def width(self, get: Any) -> int | None:
        """No tokens."""
        return None

    def labels(self, get: Any) -> int | None:
        """Of the embedding's table; a projection takes any number."""
        return _any_label(get) or get("num_class_embeds")


class LabelledTransformer(Labelled):
    """DiT; one label more than classes stands for none of them."""

    def labels(self, get: Any) -> int | None:
        """Classes and the null label."""
        return int(get("num_embeds_ada_norm")) + 1 if get("num_embeds_ada_norm") else None


class TextUNet(Family):
    """UNet2DConditionModel; SDXL's pooled text and picture sizes are extras."""

    def extras(self, get: Any) -> dict[str, int]:
        """``text_embeds`` and ``time_ids`` of SDXL: 6 numbers, 5 in the refiner."""
        if get("addition_embed_type") != "text_time":
            return {}
        total, each = int(get("projection_class_embeddings_input_dim")), int(get("addition_time_embed_dim"))
        count = 5 if total - 5 * each == 1280 else 6
        return {"text_embeds": total - count * each, "time_ids": count}

    def labels(self, get: Any) -> int | None:
        """Beside the tokens, in upscalers."""
        return _any_label(get) or get("num_class_embeds")

    def keywords(self, x: Tensor, tokens: Tensor | None, extras: dict[str, Tensor]) -> dict[str, Any]:
        """Extras go into ``added_cond_kwargs``."""
        return {**super().keywords(x, tokens, extras), **({"added_cond_kwargs": extras} if extras else {})}


class PixArt(Family):
    """PixArt alpha and sigma; the resolution and aspect ratio of alpha at 1024 are extras."""

    def extras(self, get: Any) -> dict[str, int]:
        """``resolution`` (height, width) and ``aspect_ratio``."""
        use = get("use_additional_conditions")
        # diffusers turns them on by itself at a sample size of 128
        use = get("sample_size") == 128 if use is None else use
        return {"resolution": 2, "aspect_ratio": 1} if use else {}

    def width(self, get: Any) -> int | None:
        """Of the caption encoder."""
        return get("caption_channels") or get("cross_attention_dim")

    def keywords(self, x: Tensor, tokens: Tensor | None, extras: dict[str, Tensor]) -> dict[str, Any]:
        """Without extras both entries are None."""
        added = extras or {"resolution": None, "aspect_ratio": None}
        return {"encoder_hidden_states": tokens, "added_cond_kwargs": added}


class Joint(Family):
    """Stable Diffusion 3: tokens and pooled text side by side."""

    def extras(self, get: Any) -> dict[str, int]:
        """``pooled_projections``."""
        return {"pooled_projections": int(get("pooled_projection_dim"))}

    def width(self, get: Any) -> int | None:
        """Of the joint attention's text."""
        return int(get("joint_attention_dim"))

    def keywords(self, x: Tensor, tokens: Tensor | None, extras: dict[str, Tensor]) -> dict[str, Any]:
        """Straight through."""
        return {"encoder_hidden_states": tokens, **extras}


class Flux(Joint):
    """FLUX.1: 2x2 patches of the latent are the tokens, timesteps run from 0 to 1, guidance is an input."""

    timestep_unit = 1000.0

    def extras(self, get: Any) -> dict[str, int]:
        """``pooled_projections``, and ``guidance`` where the model was distilled with it."""
        return {**super().extras(get), **({"guidance": 1} if get("guidance_embeds") else {})}

    def channels(self, get: Any) -> int:
        """Count a quarter of the model's: it is given 2x2 patches."""
        return int(get("in_channels")) // 4

    def usual(self, get: Any) -> tuple[int, ...] | None:
        """Take a picture of 1024 pixels."""
        return (self.channels(get), 128, 128)

    def shape(self, get: Any) -> tuple[int, ...] | None:
        """None: the config has no size."""
        return None

    def enter(self, x: Tensor) -> Tensor:
        """(n, C, H, W) to (n, H/2 W/2, 4 C): channel first within a patch, then its rows and columns."""
        n, c, h, w = x.shape
        if h % 2 or w % 2:
            raise InputError(f"Flux takes latents of even height and width, got {h} x {w}: pad by one")
        return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)

    def leave(self, out: Tensor, x: Tensor) -> Tensor:
        """Undo `enter`."""
        n, _, h, w = x.shape
        return out.view(n, h // 2, w // 2, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, -1, h, w)

    def keywords(self, x: Tensor, tokens: Tensor | None, extras: dict[str, Tensor]) -> dict[str, Any]:
        """Position ids: zeros for text, (0, row, column) for patches."""
        h, w = x.shape[2] // 2, x.shape[3] // 2
        ids = x.new_zeros(h, w, 3)
        ids[..., 1] += torch.arange(h, device=x.device)[:, None]
        ids[..., 2] += torch.arange(w, device=x.device)
        count = 0 if tokens is None else tokens.shape[1]
        more = {**super().keywords(x, tokens, extras), "txt_ids": x.new_zeros(count, 3)}
        if "guidance" in extras:
            more["guidance"] = extras["guidance"][:, 0]
        return {**more, "img_ids": ids.flatten(0, 1)}


class Video(Family):
    """Denoisers of clips: samples are (C, F, H, W)."""

    axes = 4


class Wan(Video):
    """Wan 2.1 and 2.2, text to video."""

    def width(self, get: Any) -> int | None:
        """Of the text encoder."""
        return int(get("text_dim"))

    def usual(self, get: Any) -> tuple[int, ...] | None:
        """Take 81 frames of 480 x 832, an eighth the size and a quarter the frames."""
        return (self.channels(get), 21, 60, 104)

    def shape(self, get: Any) -> tuple[int, ...] | None:
        """Of the shipped model, which states ``sample_size`` (frames, height, width); Wan's own do not."""
        sizes = get("sample_size")
        return None if sizes is None else (self.channels(get), *_sizes(sizes))


class CogVideoX(Video):
    """CogVideoX 1.0 and 1.5, text to video; frames come before channels."""

    def width(self, get: Any) -> int | None:
        """Of the text encoder."""
        return int(get("text_embed_dim"))

    def shape(self, get: Any) -> tuple[int, ...] | None:
        """``sample_frames`` counts pictures: the autoencoder keeps the first, and one of each few others."""
        frames, ratio = get("sample_frames"), get("temporal_compression_ratio")
        latent = (_positive(frames) - 1) // _positive(ratio) + 1
        return (self.channels(get), *_sizes([latent, get("sample_height"), get("sample_width")]))

    def enter(self, x: Tensor) -> Tensor:
        """(n, C, F, H, W) to (n, F, C, H, W)."""
        return x.transpose(1, 2)

    def leave(self, out: Tensor, x: Tensor) -> Tensor:
        """Undo `enter`."""
        return out.transpose(1, 2)

    def places(self, get: Any, x: Tensor) -> dict[str, Any]:
        """Rotary embeddings as diffusers' pipeline computes them, for models that use them."""
        if not get("use_rotary_positional_embeddings"):
            return {}
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        side, frames_a_patch = int(get("patch_size")), get("patch_size_t")
        _, _, frames, height, width = x.shape
        grid = (height // side, width // side)
        base = (int(get("sample_height")) // side, int(get("sample_width")) // side)
        options: dict[str, Any] = {"embed_dim": int(get("attention_head_dim")), "grid_size": grid}
        if frames_a_patch is None:
            options |= {"crops_coords": get_resize_crop_region_for_grid(grid, base[1], base[0])}
        else:
            frames = (frames + frames_a_patch - 1) // frames_a_patch
            options |= {"crops_coords": None, "grid_type": "slice", "max_size": base}
        where = "cpu" if x.is_meta else x.device
        found = get_3d_rotary_pos_embed(**options, temporal_size=frames, device=where)
        return {"image_rotary_emb": tuple(table.to(x.device) for table in found)}


FAMILIES: dict[str, Family] = {
    "UNet2DConditionModel": TextUNet(), "UNet2DModel": Labelled(),
    "DiTTransformer2DModel": LabelledTransformer(), "PixArtTransformer2DModel": PixArt(),
    "SD3Transformer2DModel": Joint(), "FluxTransformer2DModel": Flux(),
    "WanTransformer3DModel": Wan(), "CogVideoXTransformer3DModel": CogVideoX(),
}  # fmt: skip


def _any_label(get: Any) -> int | None:
    return 1 << 31 if get("class_embed_type") else None


def _positive(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise InputError(
            f"the model's config has {value!r:.60} for a size of its samples: it must be a whole number from "
            f"1 to {MAX_SIDE}; repair config.json"
        )
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        raise InputError(
            f"the model's config has sample_size = {values!r:.60}: a clip's is (frames, height, width); "
            "repair config.json"
        )
    return tuple(_positive(value) for value in values)
