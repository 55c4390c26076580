"""Plans, wildcards, overrides, the registry, and what a person can get wrong."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import quant
from quant import recipes
from quant.methods.rtn import RtnConfig


def test_listing_does_not_import_torch(repo) -> None:
    code = (
        "import sys, quant\nassert quant.list_methods() and quant.list_presets('rtn-*')\n"
        "quant.get_method('rtn').config.model_json_schema()\nquant.get_preset('rtn-w8a8')\n"
        "print([m for m in ('torch', 'triton', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_method_has_a_card_and_metadata(repo) -> None:
    for name in quant.list_methods():
        info = quant.get_method(name).info
        folder = repo / "quant" / "methods" / name
        assert (folder / "CARD.md").stat().st_size > 500 and info.title and info.native
        assert list((folder / "presets").glob("*.yaml"))


def test_default_policy_gives_reasons(tiny) -> None:
    lines = {line.name: line for line in quant.plan(tiny.build("unet"), "rtn-w4a4").layers}
    for name in ("conv_in", "conv_out", "time_embedding.linear_1"):
        assert lines[name].skipped and lines[name].reason
    modulation = lines["down_blocks.0.resnets.0.time_emb_proj"]
    assert modulation.bits == "W8A32" and "weight only" in modulation.reason
    assert lines["mid_block.resnets.0.conv1"].bits == "W4A4"
    assert lines["mid_block.resnets.0.conv1"].cost == "weight + activation"
    assert "less than a group" in lines["down_blocks.0.resnets.0.conv1"].reason
    w8 = {line.name: line for line in quant.plan(tiny.build("unet"), "rtn-w8a8").layers}
    assert w8["mid_block.resnets.0.conv1"].activation.granularity.kind == "sample"
    assert all(line.cost == "" for line in w8.values())


def test_float_weights_stand_beside_integers(tiny) -> None:
    model = tiny.build("unet")
    codes = {}
    for weights, label in (("integer", "int4/g8"), ("float", "fp4-e2m1/g8")):
        copied = copy.deepcopy(model)
        ledger = quant.quantize_(copied, RtnConfig(weight_bits=4, weight_group=8, weight_format=weights))
        record = next(r for r in ledger.layers if r.name == "mid_block.resnets.0.conv1")
        assert record.weight.label == label
        codes[weights] = record.bytes_by["codes"]
    assert codes["integer"] == codes["float"]
    with pytest.raises(ValueError, match="4, 6 or 8 bits, got weight_bits 5"):
        RtnConfig(weight_bits=5, weight_format="float")


def test_macs_are_counted_by_hand_where_it_is_easy(tiny) -> None:
    plan = quant.plan(tiny.build("odd"), "rtn-w8a8", example=tiny.inputs("odd", 1))
    macs = {line.name: line.macs for line in plan.layers}
    assert macs == {
        "first": 81 * 24 * 5 * 9,
        "wide": 25 * 70 * 24 * 9,
        "depthwise": 25 * 70 * 9,
        "pointwise": 25 * 33 * 70,
        "linear": 25 * 33 * 131,
        "out": 25 * 131 * 3,
    }
    assert plan.mac_rule.startswith("counted") and plan.macs_share() == {"W8A8": 1.0}
    assert "pass example" in quant.plan(tiny.build("odd"), "rtn-w8a8").mac_rule


def test_wildcards_and_overrides(tiny) -> None:
    model = tiny.build("unet")
    plan = quant.plan(
        model,
        "rtn-w4a8",
        include=["mid_block.*"],
        exclude=["*.to_v"],
        overrides={"*.to_k": {"weight_bits": 8, "weight_group": None}, "*.to_q": "skip"},
    )
    for line in plan.layers:
        if not line.name.startswith("mid_block."):
            assert line.skipped and line.reason == "not included"
        elif line.name.endswith(("to_v", "to_q")):
            assert "excluded by '*.to_v'" in line.reason or "override '*.to_q'" in line.reason
        elif line.name.endswith("to_k"):
            assert line.bits == "W8A8" and line.settings == {"weight_bits": 8, "weight_group": None}
    ledger = quant.quantize_(model, "rtn-w4a8", include=["mid_block.*"], exclude=["*.to_v", "*.to_q"])
    assert len(ledger.quantized) == len([1 for line in plan.layers if not line.skipped])


BAD = {
    "unknown preset": (lambda m: quant.plan(m, "rtn-w8a9"), "did you mean 'rtn-w8a8'"),
    "typo in a pattern": (lambda m: quant.plan(m, "rtn-w8a8", exclude=["linaer"]), "closest name: 'linear'"),
    "folder as a recipe": (lambda m: quant.plan(m, "/"), "'/' is a folder; a recipe is a preset's"),
    "override of nothing": (
        lambda m: quant.plan(m, "rtn-w8a8", overrides={"zzz": "skip"}),
        "matches none of the 6",
    ),
    "override of layers left alone": (
        lambda m: quant.plan(m, "rtn-w8a8", overrides={"linear": {"weight_bits": 4}, "*": "skip"}),
        r"override 'linear' changes nothing: every layer that it matches \(1\) is left alone "
        r"\(skipped by override '\*'\)",
    ),
    "unknown setting": (lambda m: quant.plan(m, "rtn-w8a8", overrides={"*": {"bits": 4}}), "rtn: bits = 4"),
    "bits out of range": (
        lambda m: quant.plan(m, "rtn-w8a8", overrides={"*": {"weight_bits": 1}}),
        "greater than or equal to 2",
    ),
    "recipe of another kind": (lambda m: quant.plan(m, 8), "a preset name or a method's config, got int"),
    "no layers": (lambda m: quant.plan(nn.ReLU(), "rtn-w8a8"), "no Linear or Conv2d layer"),
    "bare layer": (lambda m: quant.plan(m.linear, "rtn-w8a8"), "wrap it"),
    "restore of nothing": (lambda m: quant.restore_(m), "not quantized"),
    "unknown method": (lambda m: quant.get_method("magic"), "unknown method 'magic', known: "),
    "unknown backend": (lambda m: quant.use_backend(m, "fast").__enter__(), "allowed: simulated, kernels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str, tiny) -> None:
    call, message = BAD[case]
    with pytest.raises(quant.InputError, match=message) as caught:
        call(tiny.build("odd"))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_layers_that_forward_elsewhere_are_left_alone() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    lines = {line.name: line for line in quant.plan(model, "rtn-w8a8").layers}
    assert lines["self_attn.out_proj"].skipped and "subclass" in lines["self_attn.out_proj"].reason
    assert not lines["linear1"].skipped


def test_a_layer_used_twice_is_one_layer() -> None:
    shared = nn.Linear(16, 16)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(quant.quantize_(model, "rtn-w8a8").layers) == 1
    assert model[0] is model[2] and type(model[0]) is not nn.Linear
    quant.restore_(model)
    assert model[0] is shared and model[2] is shared


def test_copies_are_independent(tiny) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, "rtn-w8a8")
    out = tiny.run(model, "odd")
    twin = copy.deepcopy(model)
    quant.restore_(model)
    assert torch.equal(tiny.run(twin, "odd"), out) and not torch.equal(tiny.run(model, "odd"), out)


def test_originals_can_be_dropped(tiny) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, RtnConfig(weight_bits=5), keep_originals=False)
    with pytest.raises(quant.InputError, match="load the full-precision model"):
        quant.restore_(model)
    with pytest.raises(quant.InputError, match="no full-precision model"), quant.enabled(model, False):
        pass


def test_one_images_scale_does_not_depend_on_its_batch(tiny) -> None:
    model = tiny.build("odd")
    quant.quantize_(model, "rtn-w8a8")
    x = tiny.inputs("odd", 3)[0][0]
    x[1] *= 50
    with torch.no_grad():
        torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-5, atol=1e-6)


def test_a_recipe_string_means_the_same_for_plan_and_quantize(tiny, tmp_path) -> None:
    model = tiny.build("unet")
    planned = quant.plan(model, "rtn-w8a8+weight_bits=3+activation_bits=6")
    assert planned.recipe == "rtn-w8a8+weight_bits=3+activation_bits=6"
    assert {line.weight.bits for line in planned.quantized if line.activation} == {3}
    assert planned.config["activation_bits"] == 6
    ledger = quant.quantize_(copy.deepcopy(model), "rtn-w8a8+weight_bits=3+activation_bits=6")
    assert ledger.config == planned.config and ledger.recipe == planned.recipe
    file = tmp_path / "mine.yaml"
    file.write_text("title: t\npolicy: common\nmethod: rtn\nconfig: {weight_bits: 3, activation_bits: 6}\n")
    for written in (str(file), file):
        assert recipes.resolve(written)[2].weight_bits == 3
    assert recipes.resolve(f"{file}+weight_bits=4")[0] == "mine+weight_bits=4"
    assert recipes.resolve(RtnConfig(weight_bits=3))[0] == "rtn"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("svdquant-w4a4+rnk=8", "svdquant has no setting 'rnk'; did you mean 'rank'?"),
        ("svdqant-w4a4", "unknown preset 'svdqant-w4a4'; did you mean 'svdquant-w4a4'?"),
        ("rtn-w8a8+weight_bits", "is no change; write PRESET+field=value"),
        ("rtn-w8a8+weight_bits=99", "weight_bits"),
        ("rtn-w8a8+weight_bits=3+weight_bits=4", "weight_bits is given twice"),
        ("rtn-w8a8+activation_bits=", "activation_bits has no value; give one, or write"),
        ("zzz", "see: brainlab list presets"),
        ("zzz.yaml", "no preset file zzz.yaml: give a file that a method saved"),
        ("watermark", "'watermark' is an adapter"),
        ("zzz*", "no preset matches 'zzz*'; see: brainlab list presets"),
    ],
)
def test_a_typo_in_a_recipe_is_one_short_line(recipe: str, says: str) -> None:
    with pytest.raises(quant.InputError) as refused:
        recipes.parse(recipe)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert sum(name in str(refused.value) for name in quant.list_presets()) < 3  # never all of them


def test_a_pattern_for_one_recipe_is_answered_with_what_it_matches() -> None:
    matches = quant.list_presets("*-w4a4")
    for given in ("*-w4a4", "*-w4a4+weight_bits=3"):
        with pytest.raises(quant.InputError, match="is a pattern, which brainlab compare") as refused:
            recipes.parse(given)
        assert f": {', '.join(matches[:6])} and {len(matches) - 6} more" in str(refused.value)


def test_several_recipes_with_wildcards_and_groups() -> None:
    names = [r.name for r in recipes.expand("rtn-w4*,svdquant-w8a8,rtn")]
    assert names[:3] == ["rtn-w4a4", "rtn-w4a8", "svdquant-w8a8"]
    assert set(names[3:]) == set(quant.list_presets("rtn-*")) - {"rtn-w4a4", "rtn-w4a8"}
    assert [r.name for r in recipes.expand(["rtn-w8a8", "rtn-w8a8+weight_bits=3"])][1].endswith("=3")
    by_method = recipes.groups()
    assert set(by_method) == {name.replace("_", "-") for name in quant.list_methods()}
    assert sorted(name for names in by_method.values() for name in names) == sorted(quant.list_presets())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("rtn-w8a8,rtn-w8a8", "is given twice"),
        ("rtn-w8a8,rtn-w8a8+weight_bits=8", "is given twice (as 'rtn-w8a8')"),
        ("nothing*", "no preset matches"),
        ("svdquan", "did you mean the group 'svdquant'?"),
        (" , ", "no recipes in"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(words: str, says: str) -> None:
    with pytest.raises(quant.InputError) as refused:
        recipes.expand(words)
    assert says in str(refused.value)


PRESET = "title: t\npolicy: common\nmethod: rtn\nconfig: {weight_bits: %d}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title: t\npolicy: common\nconfig: {weight_bits: 4}", "method missing"),
        ("title: t\npolicy: common\nmethod: rtn\nweight_bits: 4", "'weight_bits' is none of them"),
        (PRESET % 4 + "policy: paper", "line 5: 'policy' is given twice"),
        ("title: t\npolicy: common\nmethod: rtn\nconfig: {weight_bits: 4, weight_bits: 8}", "given twice"),
        ("title: t\npolicy: mine\nmethod: rtn\nconfig: {}", "policy 'mine'; allowed: paper, common"),
        ("- a", "does not say 'name: value'"),
    ],
)
def test_a_preset_file_of_which_something_would_be_lost_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(quant.InputError) as refused:
        recipes.parse(tmp_path / "x.yaml")
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_two_files_of_one_name_are_never_one_recipe(tmp_path: Path) -> None:
    """The second was left out of a comparison in silence."""
    files = [tmp_path / name / "mine.yaml" for name in "ab"]
    for bits, file in zip((4, 6), files, strict=True):
        file.parent.mkdir()
        file.write_text(PRESET % bits)
    with pytest.raises(quant.InputError, match=r"'mine' stands for two, .* rename one of the files"):
        recipes.expand(f"{files[0]},{files[1]}")
    assert [r.name for r in recipes.expand(f"{files[0]},{files[1]}+activation_bits=4")] == [
        "mine", "mine+activation_bits=4",
    ]  # fmt: skip


def test_a_file_under_the_name_of_a_shipped_preset_says_the_same_or_is_refused(tmp_path: Path) -> None:
    """Tables and ledgers would call it by that name."""
    file = tmp_path / "rtn-w4a4.yaml"
    file.write_text(PRESET % 8)
    with pytest.raises(quant.InputError, match="has the name of the shipped preset 'rtn-w4a4'"):
        recipes.parse(file)
    shipped = recipes.parse("rtn-w4a4").config().model_dump_json()
    file.write_text(f"title: t\npolicy: common\nmethod: rtn\nconfig: {shipped}\n")
    assert recipes.parse(file).config() == recipes.parse("rtn-w4a4").config()
