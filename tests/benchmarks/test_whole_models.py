"""Whole models in miniature: what is replaced, what it weighs, and a machine without a GPU."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest
import torch

from benchmarks import native_brain, native_pictures, whole_launches, whole_models
from benchmarks.whole_engines import prepare_native_, tensor_bytes, to_native_
from quant.layers.install import quant_layers


def test_every_linear_of_a_block_is_replaced_and_weighs_less() -> None:
    torch.manual_seed(0)
    size = whole_models.flux(toy=True)
    model = size.build().eval().requires_grad_(False)
    inputs = size.inputs(torch.device("cpu"), torch.float32)
    with torch.no_grad():
        exact, before = model(**inputs)[0], tensor_bytes(model)
        counts = to_native_(
            model, lambda name, layer: "blocks." in name and "norm" not in name,
            lambda name, layer: "norm" in name, convolutions=False,
        )  # fmt: skip
        out = model(**inputs)[0]
    assert counts == {"W4A16": 5, "W4A4": 12}
    assert not [n for n, m in model.named_modules() if "blocks." in n and type(m) is torch.nn.Linear]
    assert all(layer.decoded.numel() == 0 for layer in quant_layers(model).values())
    assert tensor_bytes(model) < before / 2
    assert 1e-4 < ((out - exact).norm() / exact.norm()).item() < 0.2
    if not torch.cuda.is_available():
        assert prepare_native_(model, torch.float32) == 0


def test_layers_that_share_an_input_are_one_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = whole_models.fused
    # a double block and two single ones; eleven blocks of self- and cross-attention
    for name, fewer in (("flux", 4 + 2 * 3), ("sdxl", 11 * (2 + 1))):
        size, found = whole_models.SIZES[name](True), []
        inputs = size.inputs(torch.device("cpu"), torch.float32)
        for build in (fused, lambda model: model):
            monkeypatch.setattr(whole_models, "fused", build)
            torch.manual_seed(0)
            model = size.build().eval().requires_grad_(False)
            found.append((model(**inputs)[0], sum(type(m) is torch.nn.Linear for m in model.modules())))
        torch.testing.assert_close(found[0][0], found[1][0])
        assert found[0][1] == found[1][1] - fewer, (name, found[0][1], found[1][1])


def test_convolutions_are_replaced_in_a_u_net() -> None:
    size = whole_models.sdxl(toy=True)
    model = size.build().eval().requires_grad_(False)
    counts = to_native_(model, lambda name, layer: False, lambda name, layer: False, convolutions=True)
    assert set(counts) == {"conv W8A8"} and counts["conv W8A8"] > 20


def test_kernels_are_only_built_in_this_thread_and_run_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jit = pytest.importorskip("triton.runtime.jit")
    seen: list[bool] = []
    monkeypatch.setattr(jit.JITFunction, "run", lambda *_, grid, warmup, **__: seen.append(warmup))

    def launch() -> None:
        jit.JITFunction.run(None, grid=(1,), warmup=False)

    with whole_launches.only_built(2):
        launch()
        other = Thread(target=launch)
        other.start()
        other.join()
    launch()
    assert seen == [True, False, False]


def test_rows_become_a_table() -> None:
    place = {"device": "a GPU", "torch": "2", "triton": "3", "commit": "abc"}
    first = {"model": "flux", "engine": "bf16", "ms": 100.0, "ratio": "1.000", "ms_launched": 101.0}
    second = {"model": "flux", "engine": "W4A4", "ms": 50.0, "ratio": "2.000", "ms_launched": 60.0}
    rows = [{**first, "bytes": 8e9, **place}, {**second, "bytes": 2e9, **place}]
    assert "| flux | W4A4 | 50.0 | 2.000 | 60.0 | 2.00 | 4.00 |" in whole_models.markdown(rows)


@pytest.mark.parametrize("study", [whole_models, native_pictures, native_brain])
def test_without_a_gpu_it_ends_with_three(
    study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert study.main(["--out", str(tmp_path / "out")]) == 3
    assert "CUDA device" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_psnr_of_equal_pictures_is_capped() -> None:
    one = torch.rand(2, 3, 4, 4)
    assert native_pictures.psnr(one, one).tolist() == [native_pictures.PEAK_DB] * 2
    assert native_pictures.psnr(one, (one + 0.1)).allclose(
        torch.full((2,), 20.0, dtype=torch.float64), atol=1e-4
    )


def test_pictures_are_held_to_the_control_and_the_earlier_tolerance_is_shown() -> None:
    place = {"device": "a GPU", "torch": "2", "triton": "3", "commit": "abc", "steps": 8}
    row = {"model": "dit-64", "recipe": "r", "within": True, "earlier_native": False, **place}
    text = native_pictures.markdown([{**row, "psnr_control": "27.54"}])
    assert "commit abc" in text and "drawn in the same run" in text and "given up after" in text
    assert "| 27.54 | True |" in text
    assert native_pictures._earlier(0.02, 31.0) and not native_pictures._earlier(0.02, 29.0)


def test_control_rounds_outputs_of_quantized_layers_only_meanwhile() -> None:
    import quant

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    x = torch.randn(4, 64)
    with torch.no_grad():
        before = model(x)
        with native_pictures.rounding(model):
            rounded = model(x)
        assert torch.equal(rounded, rounded.bfloat16().float()) and not torch.equal(rounded, before)
        assert torch.equal(model(x), before)
