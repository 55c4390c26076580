from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel

import quant

CONDITIONS = torch.randn(7, 5, 24, generator=torch.Generator().manual_seed(0))


def record(tiny, path: Path, model=None, **changes):
    options = {
        "n_steps": 3,
        "seed": 5,
        "batch_size": 3,
        "guidance": 2.0,
        "null_condition": torch.zeros(5, 24),
    }
    return quant.record(
        tiny.build("unet") if model is None else model,
        FlowMatchEulerDiscreteScheduler(),
        CONDITIONS,
        path,
        **{**options, **changes},
    )


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_rows_are_the_trajectory(tiny, tmp_path) -> None:
    store = record(tiny, tmp_path / "a")
    assert len(store) == 7 and len(store.timesteps) == 3
    assert repr(store) == f"Trajectories({tmp_path / 'a'}: 7 samples, 3 timesteps)"
    model, scheduler = tiny.build("unet"), FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(3)
    sample = store.sample(4)
    x = sample["x"][0][None]
    for step, timestep in enumerate(scheduler.timesteps):
        torch.testing.assert_close(sample["x"][step][None], x, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            on = model(x, timestep, encoder_hidden_states=CONDITIONS[4:5]).sample
            off = model(x, timestep, encoder_hidden_states=torch.zeros(1, 5, 24)).sample
        x = scheduler.step(off + 2 * (on - off), timestep, x).prev_sample
    torch.testing.assert_close(sample["final"][None], x, rtol=1e-4, atol=1e-5)
    assert torch.equal(sample["condition"], CONDITIONS[4])


def test_subsets_are_disjoint_and_batches_come_from_them(tiny, tmp_path) -> None:
    store = record(tiny, tmp_path / "a")
    parts = [set(store.keys(name)) for name in ("calibrate", "distill", "evaluate")]
    assert set().union(*parts) == set(range(7)) and sum(map(len, parts)) == 7
    seen = set()
    for batch in store.batches("calibrate", batch_size=4, shuffle=1):
        for row in range(len(batch.key)):
            key = int(batch.key[row])
            step = store.timesteps.index(pytest.approx(float(batch.timestep[row])))
            assert torch.equal(batch.x[row], store.sample(key)["x"][step])
            assert torch.equal(batch.condition[row], CONDITIONS[key])
            seen.add((key, step))
    assert seen == {(key, step) for key in parts[0] for step in range(3)}
    drawn = [
        torch.cat([b.key for b in store.batches(None, shuffle=seed)]).tolist() for seed in (None, 1, 1, 2)
    ]
    assert drawn[0] == [key for key in range(7) for _ in range(3)] == sorted(drawn[1])
    assert drawn[0] != drawn[1] == drawn[2] != drawn[3]
    one = list(store.batches(None, timesteps=[store.timesteps[1]], batch_size=100))
    assert len(one) == 1 and one[0].key.tolist() == list(range(7))
    with pytest.raises(quant.InputError, match="was not recorded"):
        list(store.batches(timesteps=[1.5]))
    with pytest.raises(quant.InputError, match="unknown subset 'train'"):
        store.keys("train")


def test_resumes_after_a_kill_with_the_same_bytes(tiny, tmp_path) -> None:
    whole = record(tiny, tmp_path / "whole")

    def kill(done: int, total: int, what: str) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tiny, tmp_path / "torn", progress=kill)
    with pytest.raises(quant.MissingDataError, match="not finished"):
        quant.Trajectories.open(tmp_path / "torn")
    (tmp_path / "torn" / "shard-000003.safetensors").write_bytes(b"torn in the middle of a write")
    first = (tmp_path / "torn" / "shard-000000.safetensors").stat().st_mtime_ns
    again = record(tiny, tmp_path / "torn")
    assert (tmp_path / "torn" / "shard-000000.safetensors").stat().st_mtime_ns == first
    assert again.hash == whole.hash and files(tmp_path / "torn") == files(tmp_path / "whole")


def test_noise_depends_on_seed_and_key_only(tiny, tmp_path) -> None:
    a, b = record(tiny, tmp_path / "a"), record(tiny, tmp_path / "b", batch_size=2)
    other = record(tiny, tmp_path / "c", seed=6)
    for key in range(7):
        assert torch.equal(a.sample(key)["x"][0], b.sample(key)["x"][0])
        assert not torch.equal(a.sample(key)["x"][0], other.sample(key)["x"][0])


def test_other_settings_in_the_same_folder_are_refused(tiny, tmp_path) -> None:
    record(tiny, tmp_path / "a")
    with pytest.raises(quant.InputError, match="holds a recording with seed = 5, asked for 6"):
        record(tiny, tmp_path / "a", seed=6)
    model, before = tiny.build("unet", seed=1), files(tmp_path / "a")
    with pytest.raises(quant.InputError, match="UNet2DConditionModel with other weights"):
        record(tiny, tmp_path / "a", model=model)  # it was handed out as this model's
    assert files(tmp_path / "a") == before
    manifest = tmp_path / "a" / "manifest.json"
    older = json.loads(manifest.read_text())
    del older["weights"]
    manifest.write_text(json.dumps(older))
    for weights in (model, None):  # recordings did not always say, and another's weights are not put in later
        record(tiny, tmp_path / "a", model=weights)
        assert json.loads(manifest.read_text()) == older
    with pytest.raises(quant.InputError, match="needs conditions and null_condition"):
        record(tiny, tmp_path / "b", null_condition=None)
    with pytest.raises(quant.MissingDataError, match=r"make them with quant\.record"):
        quant.Trajectories.open(tmp_path / "nowhere")


def test_models_without_a_condition_and_stochastic_samplers(tmp_path) -> None:
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    store = quant.record(model, DDIMScheduler(), None, tmp_path, n_steps=4, n_samples=5, seed=1, batch_size=2)
    assert store.timesteps[0] > store.timesteps[-1] and "condition" not in store.sample(0)
    assert next(iter(store.batches("distill"))).condition is None


def test_shards_stay_open_and_batches_are_read_at_once(tiny, tmp_path, monkeypatch) -> None:
    from quant.recordings import shards

    store = record(tiny, tmp_path / "a")  # 7 samples in 3 shards
    opened: list[Path] = []
    real = shards.read_shard
    monkeypatch.setattr(shards, "read_shard", lambda shard: opened.append(shard) or real(shard))
    store = quant.Trajectories.open(tmp_path / "a")
    for seed in range(5):
        for batch in store.batches(None, batch_size=4, shuffle=seed):
            assert batch.x.shape[0] == len(batch.key) and batch.x.is_contiguous()
    checks, reads = 3, 3  # each shard is read once to be checked and stays open once
    assert len(opened) == checks + reads
    for key in range(7):
        store.sample(key)
    assert len(opened) == checks + reads
    # one open shard at a time: a batch over all of them, in any order, still opens each once
    store._shards = shards.OpenShards(limit=1)
    opened.clear()
    pairs = [(6, 0), (0, 1), (5, 2), (1, 0), (6, 2), (3, 1)]
    batch = store.read(pairs)
    assert len(opened) == 3 and len(store._shards._files) == 1
    assert batch.key.tolist() == [key for key, _ in pairs]
    for row, (key, step) in enumerate(pairs):
        assert torch.equal(batch.x[row], store.sample(key)["x"][step])


def test_a_recording_can_be_copied_and_still_reads(tiny, tmp_path) -> None:
    import copy

    store = record(tiny, tmp_path / "a")
    store.sample(0)
    assert torch.equal(copy.deepcopy(store).sample(0)["x"], store.sample(0)["x"])
