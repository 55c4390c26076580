"""MixDQ's settings: by layer, in any dtype, at their published values; how calibration walks a recording."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.formats.schedule import Clock
from quant.layers.activation import Known
from quant.layers.quantized import make
from quant.layers.sinks import matches
from quant.methods.mixdq import MixdqConfig
from quant.methods.mixdq.core import _layer
from quant.methods.mixdq.ranges import RunningRange
from quant.methods.mixdq.search import errors, is_content, measure
from quant.methods.mixdq.sinks import Sink, _judge
from quant.methods.plumbing import Work
from quant.sensitivity.probes import NoisePrediction

KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "mid_block.resnets.0.conv1"
SINK = 2
CONFIG = MixdqConfig(points=12, batch_size=4)


@pytest.fixture(scope="module")
def planted(tiny, tmp_path_factory):
    """A recording whose conditions have the same huge token, and a null condition that is large too."""
    conditions = torch.randn(6, 5, 24, generator=torch.Generator().manual_seed(0))
    conditions[:, SINK] = torch.linspace(-300, 300, 24)
    return quant.record(
        tiny.build("unet"), FlowMatchEulerDiscreteScheduler(), conditions, tmp_path_factory.mktemp("s"),
        n_steps=3, guidance=2.0, null_condition=torch.full((5, 24), -40.0),
    )  # fmt: skip


def both(model, store, config: MixdqConfig = CONFIG, **options):
    """Ledger of a model whose plan was kept, which every case here must show."""
    plan = quant.plan(model, config, trajectories=store, **options)
    ledger = quant.quantize_(model, config, trajectories=store, **options)
    assert [record.as_plan() for record in ledger.layers] == plan.layers
    return ledger


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_plan_is_what_is_done_in_any_dtype(dtype, tiny, planted, tmp_path) -> None:
    model = tiny.build("unet").to(dtype)
    ledger = both(model, planted, include=["*attn2*"])
    layer = model.get_submodule(KEY)
    assert layer.branch.row.dtype == dtype and int(layer.branch.position) == SINK
    twin = tiny.build("unet", seed=9).to(dtype)
    loaded = quant.load(quant.export(model, tmp_path / "m.safetensors"), twin)
    assert torch.equal(tiny.run(twin, "unet"), tiny.run(model, "unet"))
    assert loaded.bytes_after == ledger.bytes_after


def test_overrides_of_sinks_are_the_layers_own(tiny, planted) -> None:
    notes = {}
    for name, config, override in (
        ("off", CONFIG, {"sinks": False}),
        ("on", CONFIG.model_copy(update={"sinks": False}), {"sinks": True}),
        ("ratio", CONFIG, {"sink_ratio": 1e6}),
    ):
        model = tiny.build("unet")
        ledger = both(model, planted, config, overrides={KEY: override}, include=["*attn2*"])
        layer = model.get_submodule(KEY)
        notes[name] = {r.name: r.notes for r in ledger.layers}
        if name != "off":
            assert (int(layer.branch.position) == SINK) == (name == "on")
        assert (layer.branch is None) == (name == "off")
    value = KEY.replace("to_k", "to_v")
    assert notes["off"][KEY] == {} and notes["off"][value]["sink"] == "stored row"
    assert notes["on"][KEY]["sink"] == "stored row" and notes["on"][value] == {}
    assert notes["ratio"][KEY]["sink"] == "none found" and notes["ratio"][value]["sink"] == "stored row"


def test_overrides_of_momentum_are_the_layers_own(tiny, planted) -> None:
    other = "mid_block.resnets.0.conv2"

    def scales(config: MixdqConfig = CONFIG, **options) -> list[torch.Tensor]:
        model = tiny.build("unet")
        both(model, planted, config, include=[CONV, other], **options)
        return [model.get_submodule(name).input_quantizer.scale for name in (CONV, other)]

    running, extremes = scales(), scales(CONFIG.model_copy(update={"momentum": None}))
    mixed = scales(overrides={CONV: {"momentum": None}})
    assert extremes[0] > running[0]
    assert torch.equal(mixed[0], extremes[0]) and torch.equal(mixed[1], running[1])


def test_overrides_of_split_shortcuts(tiny, planted) -> None:
    name = "up_blocks.0.resnets.0.conv_shortcut"
    model = tiny.build("unet")
    whole = CONFIG.model_copy(update={"split_shortcuts": False})
    both(model, planted, whole, include=[name], overrides={name: {"split_shortcuts": True}})
    assert len(model.get_submodule(name).input_quantizer.scale.unique()) == 2


def test_old_values_weigh_95_percent() -> None:
    assert MixdqConfig().momentum == 0.95
    seen = RunningRange(MixdqConfig().momentum, per_channel=False)
    for value in (1.0, 3.0):
        seen.update(torch.tensor([[-value, value]]))
    torch.testing.assert_close((seen.low, seen.high), (torch.tensor([[-1.1]]), torch.tensor([[1.1]])))


def test_calibration_visits_timesteps_in_random_order(tiny, planted) -> None:
    orders = []
    for seed in (0, 0, 1):
        model, seen = tiny.build("unet"), []
        model.register_forward_pre_hook(
            lambda m, args, kwargs, seen=seen: seen.extend(kwargs["timestep"].tolist()), with_kwargs=True
        )
        config = CONFIG.model_copy(update={"sinks": False, "batch_size": 1, "points": 7})
        quant.quantize_(model, config, trajectories=planted, include=[CONV], seed=seed)
        orders.append(seen[1:])  # the first forward counts multiply-accumulates
    steps = orders[0][::2]  # each point is followed by the null condition's
    assert len(steps) == 7 and steps == orders[0][1::2]
    assert sorted(steps, reverse=True) != steps and orders[0] == orders[1] != orders[2]


def test_ranges_hold_the_null_condition(tiny, planted) -> None:
    """Without it the range would end at the conditions' own -3 and 3."""
    model = tiny.build("unet")
    quant.quantize_(
        model, CONFIG.model_copy(update={"momentum": None}), trajectories=planted, include=["*attn2.to_k"]
    )
    quantizer = model.get_submodule(KEY).input_quantizer
    lowest = -float(quantizer.zero_point) * float(quantizer.scale)
    assert lowest == pytest.approx(-40.0, rel=0.02)


def test_a_sink_is_judged_by_medians() -> None:
    """Over conditions: one odd prompt makes no sink. Over the other tokens: a second sink hides no first."""
    x = torch.ones(5, 5, 24)
    x[1, 3] = 100.0
    assert _judge([x], [x], 8.0) is None
    x[:, SINK], x[:, 4] = 100.0, 40.0
    assert _judge([x], [x], 8.0).ratio == 100.0


def test_a_bias_is_given_back_by_the_branch_alone() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 7), torch.randn(1, 5, 24)
    line = quant.plan(torch.nn.Sequential(layer), "rtn-w8a8").layers[0]
    with torch.no_grad():
        sink = Sink(SINK, 100.0, True, x[0, SINK].clone(), layer(x)[0, SINK].clone())
        made = make(layer, _layer(Work(line, layer, CONFIG), sink, True), Clock())
        assert torch.equal(made(x)[:, SINK], sink.row[None])
        torch.testing.assert_close(made(x), layer(x), rtol=0.05, atol=0.05)
    assert _layer(Work(line, layer, CONFIG), None, True).bias is None  # an empty slot leaves it where it is


def test_presets_give_what_the_card_says(tiny) -> None:
    paper = {x.name: x for x in quant.plan(tiny.build("unet"), "mixdq-w4a8").layers}
    assert paper["conv_in"].bits == paper["conv_out"].bits == "W4A32" and paper[KEY].bits == "W4A8"
    assert paper[CONV].weight.label == "int4/channel" and paper[CONV].activation.label == "int8 asym/tensor"
    common = {x.name: x for x in quant.plan(tiny.build("unet"), "mixdq-w4a8-common").layers}
    assert common[CONV].weight.label == "int4/g64" and common[CONV].activation.label == "int8/sample"
    assert common[KEY].activation.label == "int8/token" and common["conv_in"].skipped


def test_one_condition_proves_no_sink() -> None:
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(0))
    x[:, SINK] = 100.0
    alone, several = _judge([x[:1]], [x[:1]], 8.0), _judge([x[:2], x[2:]], [x[:2], x[2:]], 8.0)
    assert alone.position == several.position == SINK
    assert not alone.constant and several.constant


def test_a_huge_feature_that_stays_does_not_make_a_token_constant() -> None:
    """One feature of 300 is the same for all; the others, as large as any token's, are the prompt's own."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, 24, generator=draw) * 0.1
    x[:, SINK, 7] = 300.0
    moves = _judge([x], [x], 8.0)
    assert moves.position == SINK and not moves.constant
    x[:, SINK] = x[0, SINK]
    still = _judge([x], [x], 8.0)
    assert still.constant
    noisy = x * (1 + 1e-3 * torch.rand(x.shape, generator=draw))  # another batch size, in half precision
    other = x.clone()
    other[:, SINK, :7] = 0.1 * torch.randn(6, 7, generator=draw)  # another token with that feature
    where = [matches(v, still.token, torch.tensor([SINK]), Known()) for v in (x, noisy, other)]
    assert where[0][:, SINK].all() and where[1][:, SINK].all() and not where[2].any()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q", True),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0", True),
        ("mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", True),
        ("mid_block.attentions.0.transformer_blocks.0.ff.net.2", True),
        ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", False),
        ("mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", False),
        ("mid_block.attentions.0.proj_in", False),
        ("up_blocks.0.resnets.0.conv_shortcut", False),
        ("time_embedding.linear_1", False),
        ("conv_in", False),
    ],
)
def test_content_layers(name: str, content: bool) -> None:
    assert is_content(name) is content


class Two(torch.nn.Module):
    """A denoiser of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(4, 16, 3, padding=1), torch.nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.b(torch.nn.functional.silu(self.a(x))))


def test_inputs_are_measured_at_their_own_bits(tmp_path) -> None:
    torch.manual_seed(0)
    model = Two().eval()
    store = quant.record(
        model,
        FlowMatchEulerDiscreteScheduler(),
        None,
        tmp_path / "s",
        n_steps=2,
        n_samples=4,
        shape=(4, 8, 8),
    )
    table = measure(
        model, CONFIG, store, side="activation", choices=(2, 4, 8), probes=[NoisePrediction(store, 2, 2)]
    )
    for name in ("a", "b"):
        by_bits = [table.of(bits, "activation")[name] for bits in ("2", "4", "8")]
        assert by_bits[1] > by_bits[0] + 6 and by_bits[2] > by_bits[1] + 15  # about 6 dB a bit
    weights = measure(model, CONFIG, store, choices=(2, 8), probes=[NoisePrediction(store, 2, 2)])
    assert weights.of("8")["a"] > weights.of("2")["a"] + 15
    assert all(made["activation_bits"] is None for made in weights.made_with["settings"].values())


def test_an_allocation_that_gives_no_number_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant.methods.mixdq.search.quantize_", lambda *args, **options: None)
    monkeypatch.setattr("quant.methods.mixdq.search.restore_", lambda model: None)
    values = iter([float("nan"), 0.2, 0.1])
    probe = SimpleNamespace(run=lambda model: None, compare=lambda a, b: ({"nmse": next(values)}, {}))
    found = errors(torch.nn.Identity(), [MixdqConfig()] * 3, None, probe)
    assert found.index(min(found)) == 2 and found[0] == float("inf")
    probe.compare = lambda a, b: ({"sqnr_db": 30.0}, {})
    assert errors(torch.nn.Identity(), [MixdqConfig()], None, probe, metric="sqnr_db") == [-30.0]  # of signal
