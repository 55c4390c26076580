"""What the feature networks of the panel are asked for, whatever the batch."""

from __future__ import annotations

import torch

from lab.compare.networks import DOMAIN, LITE0, Networks


class Lite:
    def features(self, images: torch.Tensor, size: int, taps: list[str]) -> dict[str, torch.Tensor]:
        assert size == 128 and set(taps) == {"112", "head"}
        return {"112": images, "head": images[:, :, 0, 0] * 3}


def test_features_are_pooled_over_places_and_patches() -> None:
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    encoder = lambda x: torch.stack([100 + x[:, :, 0, 0], x[:, :, 1, 1], x[:, :, 2, 2]], 1)  # noqa: E731
    networks = Networks(Lite(), lambda a, b: (a - 2 * b).mean((1, 2, 3)), encoder)
    found = networks.features(images, batch=2)
    assert set(found) == {LITE0, "head", DOMAIN} and all(x.dtype == torch.float64 for x in found.values())
    torch.testing.assert_close(found[LITE0], images.mean((2, 3)).double())
    torch.testing.assert_close(found["head"], 3 * images[:, :, 0, 0].double())
    # the global token, the first, is no patch
    torch.testing.assert_close(found[DOMAIN], (images[:, :, 1, 1] + images[:, :, 2, 2]).double() / 2)
    distance = networks.perceptual(images, images.flip(0), batch=2)
    torch.testing.assert_close(distance, (images - 2 * images.flip(0)).mean((1, 2, 3)).double())
    assert Networks().features(images) == {} and Networks().perceptual(images, images) is None
