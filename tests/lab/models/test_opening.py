"""Opening denoisers: folders, pipelines, single files, hub names; nothing unsafe, nothing left at random."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

import quant
from lab.cli.main import run
from lab.errors import InputError, MissingDataError
from lab.models.opening import open_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "unet"
    UNet2DModel(
        sample_size=8, in_channels=2, out_channels=2, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).save_pretrained(path)  # fmt: skip
    return path


@torch.no_grad()
def output(model: torch.nn.Module) -> torch.Tensor:
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    return model(x, 10).sample


def copy_of(folder: Path, tmp: Path, **changes: object) -> Path:
    """The model folder again, with changes to its config."""
    target = tmp / "copy"
    target.mkdir()
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (target / "config.json").write_text(json.dumps(config))
    name = "diffusion_pytorch_model.safetensors"
    (target / name).write_bytes((folder / name).read_bytes())
    return target


def test_a_single_file_takes_its_architecture_from_a_config_or_its_header(
    folder: Path, tmp_path: Path
) -> None:
    expected = output(open_model(str(folder)))
    weights = folder / "diffusion_pytorch_model.safetensors"
    for config in (folder, folder / "config.json"):
        model = open_model(str(weights), config=config)
        assert not model.training and torch.equal(output(model), expected)
    text = (folder / "config.json").read_text()
    for metadata in (
        {"config": text},
        {"config": json.dumps({**json.loads(text), "_class_name": None}), "model_class": "UNet2DModel"},
    ):
        save_file(load_file(weights), tmp_path / "model.safetensors", metadata=metadata)
        assert torch.equal(output(open_model(str(tmp_path / "model.safetensors"))), expected)


def test_what_was_opened_from_a_file_quantizes_and_loads(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    weights, out = folder / "diffusion_pytorch_model.safetensors", tmp_path / "q"
    command = ["quantize", str(weights), "--architecture", str(folder), "--out", str(out), "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(weights)
    with torch.device("meta"):
        bare = UNet2DModel.from_config(UNet2DModel.load_config(folder))
    quant.load(out, bare)  # the folder finds its file
    assert torch.isfinite(output(bare)).all()
    assert run(["plan", str(out / "model.safetensors")]) == 2
    assert "holds a quantized model already" in capsys.readouterr().err


def test_single_files_that_do_not_fit_are_one_line(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    file = tmp_path / "m.safetensors"

    def written(tensors: dict, settings: object) -> Callable[[], list[str]]:
        def make() -> list[str]:
            text = None if settings is None else {"config": json.dumps(settings)}
            save_file(tensors, file, metadata=text)
            return [str(file)]

        return make

    less = {k: v for k, v in weights.items() if k != "conv_in.weight"}
    for arguments, says in (
        (written(weights, None), "does not say its architecture"),
        (written(less, config), "lacks 'conv_in.weight' (1 missing, 0 too many)"),
        (written({**weights, "x": torch.zeros(1)}, config), "has 'x', which the model lacks"),
        (written({**weights, "conv_in.weight": torch.zeros(3)}, config), "'conv_in.weight' is (3,)"),
        (written(weights, {**config, "_class_name": "Path"}), "'Path' is no model class of diffusers"),
        (written(weights, {**config, "_class_name": 7}), "names no class"),
        (written(weights, {**config, "surprise": 1}), "has no setting 'surprise'"),
        (written(weights, {**config, "down_block_types": ["Nothing"]}), "cannot be built from its config"),
        (written(weights, [1]), "holds no settings"),
        (lambda: [str(file), "--part", "unet"], "is a single file"),
        (
            lambda: [str(folder), "--architecture", str(folder)],
            "--architecture belongs to a single safetensors file",
        ),
    ):
        assert run(["plan", *arguments()]) == 2, says
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and says in err
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert run(["plan", str(file)]) == 2
    assert "truncated or not a safetensors file" in capsys.readouterr().err
    for arguments in (
        [str(tmp_path / "none.safetensors")],
        [str(file), "--architecture", str(tmp_path / "no.json")],
    ):
        file.write_bytes(data)
        assert run(["plan", *arguments]) == 4
        assert capsys.readouterr().err.count("\n") == 1


def test_pickles_and_code_are_never_opened(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was here"

    class Bomb:
        def __reduce__(self):
            return (marker.touch, ())

    for name in ("a.bin", "a.ckpt", "a.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(InputError, match="pickled weights are never opened"):
            open_model(str(tmp_path / name))
    bad = copy_of(folder, tmp_path, auto_map={"AutoModel": "bomb.Bomb"})
    (bad / "bomb.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (bad / "diffusion_pytorch_model.safetensors").rename(bad / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"has only pickled weights .*convert them to safetensors"):
        open_model(str(bad))
    assert not marker.exists()


def test_folders_whose_weights_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    """diffusers itself would leave what is missing at random, with a warning."""
    bad = copy_of(folder, tmp_path)
    file = bad / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if k != "conv_out.weight"}, file)
    with pytest.raises(InputError, match=r"1 missing keys, the first is 'conv_out\.weight"):
        open_model(str(bad))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be read as a diffusers model") as caught:
        open_model(str(bad))
    assert "\n" not in str(caught.value)


def test_hub_names_offline_are_missing_data(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = []

    def refuse(name, **options):
        asked.append(options["subfolder"])
        raise OSError("Cannot reach the hub:\nno network")

    monkeypatch.setattr("diffusers.UNet2DModel.load_config", refuse)
    with pytest.raises(
        MissingDataError, match=r"could not be read or fetched .* offline, give a local folder"
    ):
        open_model("somebody/model")
    assert asked == ["transformer", "unet", None]
    assert run(["plan", "somebody/model"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_broken_pipeline_index_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match=r"model_index\.json is not JSON"):
        open_model(str(tmp_path))


def test_a_shipped_name_wins_over_a_folder_of_that_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dit-64").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert type(open_model("dit-64")).__name__ == "PixArtTransformer2DModel"
    assert isinstance(open_model("./dit-64"), UNet2DModel)
