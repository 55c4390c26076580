"""The video table's recipes exist, and its claims are about them."""

from __future__ import annotations

from benchmarks.trained import video
from quant import recipes


def test_claims_are_about_recipes_that_are_compared() -> None:
    compared = {*video.trained(40, 1e-3).values(), *video.POST_TRAINING}
    for name in compared:
        assert recipes.parse(name).name == name
    claims = video.claims(40, 1e-3)
    assert {name for claim in claims for name in claim.recipes} <= compared
    assert len({claim.id for claim in claims}) == len(claims)
    assert {claim.metric for claim in claims} == {"psnr_db", "change_error"}
