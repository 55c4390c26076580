"""SVDQuant timed at tiny size: every shape measured, the rest extrapolated by count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import svdquant_seconds
from benchmarks.files import read_csv
from lab.errors import HardwareError, InputError


def tiny() -> torch.nn.Module:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, num_layers=5,
        norm_num_groups=4, cross_attention_dim=64, sample_size=8, patch_size=2, caption_channels=24,
        use_additional_conditions=False,
    )  # fmt: skip


def test_layers_are_measured_and_extrapolated_by_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(svdquant_seconds.SIZES, "tiny", tiny)
    result = svdquant_seconds.bench_svdquant("tiny", fraction=0.4)
    svdquant_seconds.write(result, tmp_path / "b")
    rows = read_csv(tmp_path / "b.csv")
    assert [r["count"] for r in rows if r["kind"] == "block"] == [5]
    assert len(rows) == len(result["shapes"]) + len(result["blocks"])
    assert "| 3 x Linear 64x64 | branch | 5 | 2 |" in (tmp_path / "b.md").read_text()
    shapes = {(s["shape"], s["treated"]): s for s in result["shapes"]}
    # q, k, v of self-attention read one tensor and are one problem; cross-attention's k and v stay
    assert shapes["3 x Linear 64x64", "branch"]["count"] == 5
    assert shapes["Linear 64x64", "branch"]["count"] == 15
    assert {s["count"] for s in result["shapes"]} == {5, 15}
    assert all(s["measured"] == 0.4 * s["count"] == len(s["seconds_each"]) for s in result["shapes"])
    assert sum(s["count"] * s["layers_each"] for s in result["shapes"]) == result["layers_quantized"]
    layers = sum(s["seconds"] * s["count"] for s in result["shapes"])
    assert result["seconds"]["layers"] == pytest.approx(layers, abs=0.01)
    assert [b["count"] for b in result["blocks"]] == [5]
    assert result["total_seconds"] == pytest.approx(sum(result["seconds"].values()), abs=0.02)
    assert result["device"].startswith("CPU") and "times their number" in result["rule"]


def test_large_models_are_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """SDXL's and FLUX's shapes come from the meta device."""
    import quant
    from benchmarks.svdquant_kinds import layer_kinds

    with torch.device("meta"):
        model = torch.nn.Module.to(svdquant_seconds.flux(), torch.bfloat16)
    kinds = layer_kinds(model, quant.plan(model, "svdquant-w4a4"), 512)
    weights = sum(kind.count * kind.n_weights for kind in kinds)
    assert sum(p.numel() for p in model.parameters()) > 11e9 and 8e9 < weights < 11e9
    assert {k.label for k in kinds} >= {"3 x Linear 3072x3072", "Linear 3072x15360"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "sd4"}, "unknown size 'sd4'; known: zoo, sdxl, flux"),
        ({"size": "zoo", "fraction": 0.0}, "fraction is 0"),
        ({"size": "zoo", "recipe": "rtn-w4a4"}, "is a recipe of rtn"),
    ],
)
def test_bad_input_is_one_line(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        svdquant_seconds.bench_svdquant(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_said() -> None:
    with pytest.raises(HardwareError, match="device 'cuda' cannot be used"):
        svdquant_seconds.bench_svdquant("zoo", device="cuda")
