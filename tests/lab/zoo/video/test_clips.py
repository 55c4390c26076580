"""Clips are functions of their pictures and one row of numbers; the token says the movement alone."""

from __future__ import annotations

import pytest
import torch

from lab.errors import InputError
from lab.metrics import motion
from lab.zoo.video import clips


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")


def row(**changed: float) -> torch.Tensor:
    still = dict.fromkeys(clips.FIELDS, 0.0) | {"x": 0.5, "y": 0.5, "size": 1.0, "sx": 0.5, "sy": 0.5}
    return torch.tensor([[{**still, **changed}[name] for name in clips.FIELDS]])


def film(**changed: float) -> torch.Tensor:
    return clips.render(pictures(1), pictures(1, 1), row(**changed))


def test_drawn_motions_do_not_depend_on_their_number_and_stay_within_the_picture() -> None:
    many = clips.draw_motions(600, 3)
    assert torch.equal(clips.draw_motions(7, 3), many[:7])
    assert not torch.equal(clips.draw_motions(7, 4), many[:7])
    shares = [clips.kinds(many).count(kind) / 600 for kind in clips.KINDS]
    assert all(abs(found - share) < 0.06 for found, share in zip(shares, clips.SHARES, strict=True))
    x, y, size = (many[:, k] for k in range(3))
    last = size * many[:, 5].exp()
    for centre, way in ((x, many[:, 3]), (y, many[:, 4])):
        for at, width in ((centre, size), (centre + way, last)):
            assert float((at - width / 2).min()) > -1e-5 and float((at + width / 2).max()) < 1 + 1e-5


def test_what_pans_goes_a_whole_cell_of_the_latent_a_frame() -> None:
    drawn = clips.draw_motions(40, 1)
    few = drawn[[kind == "pan" for kind in clips.kinds(drawn)]][:6]
    filmed = clips.render(pictures(len(few)), pictures(len(few), 1), few)
    for clip, motion_row in zip(filmed, few, strict=True):
        x, y = (round(float(w / motion_row[2]) * clips.CELLS / 7) for w in motion_row[3:5])
        assert max(abs(x), abs(y)) == 1
        moved = clip[0].roll((-4 * y, -4 * x), (1, 2))[:, 4:-4, 4:-4]
        torch.testing.assert_close(clip[1][:, 4:-4, 4:-4], moved, atol=1e-3, rtol=0)


def test_a_latent_as_tokens_has_every_value_and_every_place_once() -> None:
    latent = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = clips.latent_tokens(latent)
    assert tokens.shape == (2, 64, clips.WIDTH)
    values, place = tokens[:, :, :32], tokens[0, :, 32:48]
    assert torch.equal(values[1, 9].view(8, 2, 2), latent[1, :, 2:4, 2:4])  # row 1, column 1 of 8
    assert values.square().sum() == latent.square().sum() and len(place.unique(dim=0)) == 64
    assert not tokens[:, :, 48:].any()


def test_a_camera_that_stands_still_shows_the_picture() -> None:
    clip = film()
    torch.testing.assert_close(clip[0, 0], pictures(1)[0], atol=1e-4, rtol=0)
    assert torch.equal(clip[0, 0], clip[0, -1]) and float(motion.energy(clip)) == 0


def test_pan_and_zoom_go_where_they_say() -> None:
    """A picture that is its own coordinates: what the camera sees tells where it looks."""
    line = (torch.arange(64) + 0.5) / 64
    v, u = torch.meshgrid(line, line, indexing="ij")
    picture = torch.stack([u, v, torch.zeros_like(u)])[None]
    panned = clips.render(picture, picture, row(x=0.4, y=0.5, size=0.5, dx=0.2, dy=-0.1))[0]
    centre = panned[:, :2, 31:33, 31:33].mean((2, 3))
    torch.testing.assert_close(centre[0], torch.tensor([0.4, 0.5]), atol=3e-3, rtol=0)
    torch.testing.assert_close(centre[-1], torch.tensor([0.6, 0.4]), atol=3e-3, rtol=0)
    zoomed = clips.render(picture, picture, row(size=0.5, grow=float(torch.log(torch.tensor(1.6)))))[0]
    widths = zoomed[:, 0, 32, 60] - zoomed[:, 0, 32, 4]
    assert float(widths[-1] / widths[0]) == pytest.approx(1.6, abs=0.01)
    assert bool((widths[1:] > widths[:-1]).all())


def test_a_sprite_moves_over_a_still_picture() -> None:
    seen, other = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    clip = clips.render(seen, other, row(radius=0.2, sx=0.3, sy=0.3, sdx=0.4, sdy=0.4))[0]
    for frame, at in ((0, 0.3), (-1, 0.7)):
        middle = round(64 * at)
        assert float(clip[frame, 0, middle, middle]) > 0.99
    assert float(clip[0, 0, 45, 45]) < 0.01 and float(clip[-1, 0, 19, 19]) < 0.01
    area = clip[:, 0].mean((1, 2))
    torch.testing.assert_close(area, area[:1].expand_as(area), atol=2e-3, rtol=0)


def test_the_token_says_the_movement_and_nothing_that_the_first_frame_shows() -> None:
    one, two = row(x=0.3, size=0.5, dx=0.2), row(x=0.6, y=0.4, size=0.5, dx=0.2)
    assert torch.equal(clips.motion_token(one), clips.motion_token(two))
    assert clips.motion_token(one).shape == (1, 1, clips.WIDTH)
    twice = row(size=1.0, dx=0.4)  # the same way, in units of what is seen
    torch.testing.assert_close(clips.motion_token(one), clips.motion_token(twice))
    for other in (row(size=0.5, dx=-0.2), row(size=0.5, dx=0.2, grow=0.3), row(size=0.5, dx=0.2, radius=0.2)):
        assert float((clips.motion_token(one) - clips.motion_token(other)).abs().max()) > 0.1


def test_as_many_motions_as_pictures() -> None:
    with pytest.raises(InputError, match="2 pictures, 2 for sprites and 1 motions"):
        clips.render(pictures(2), pictures(2), row())
