"""The app as a program asks it: its named endpoints, and a class that drags while others draw."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("gradio")
pytestmark = pytest.mark.slow


def test_every_named_endpoint_answers(address: str) -> None:
    from gradio_client import Client

    client = Client(address, verbose=False)
    with urlopen(f"{address}/gradio_api/info") as answer:
        names = set(json.load(answer)["named_endpoints"])
    calls: dict[str, tuple[Any, ...]] = {
        "/layers": ("dit-64", "", ""), "/layer_views": ("dit-64", "", ""),
        "/what_if": ("dit-64", "", "int", 4, "tensor", 1, ""),
        "/state": ("dit-64", "", "int", 4, "tensor", 1, ""), "/recipe_settings": ("rtn-w4a4",),
        "/measure_shape": (64, 64, 64), "/stop_run": ("run",), "/undo": (),
        "/plan": ("dit-64", "rtn-w4a4", "", "", ""), "/runs": (), "/run": ("run",),
        "/compare_runs": ("run", "run"), "/run_facts": ("run",),
        "/brain_map": ("run", "clusters of voxels", 0, 0.2),
        "/kernels": ("4096x3072x12288",),
        "/decode": ("run", "0", "none", 1, 0.5, 2, "", 0, True, False),
        "/watermark": (None, "", 1e-6), "/all_layers": ("dit-64", "", "kurtosis", 3),
    }  # fmt: skip
    for name, given in calls.items():
        assert client.predict(*given, api_name=name) is not None, name
    # the long ones start, say so, and end with the client; jobs stand behind whatever else runs here
    for name, given in (("/before_after", ("dit-64", "", "")), ("/apply", ("dit-64", "rtn-w8a8", "", "", "")),
                        ("/draw", ("dit-64", ["rtn-w8a8"], 1, 2, 1, 0, False, "")),
                        ("/decode_bits", (["rtn-w8a8"], "run", "0", "none", 1, 0.5, 2, "", 0, True, False)),
                        ("/sensitivity", ("dit-64", "rtn-w4a4", "*.0.attn2.to_q", "one-on"))):  # fmt: skip
        job = client.submit(*given, api_name=name)
        assert job.result(timeout=150)[0] == "Done.", name
    with pytest.raises(Exception, match="nothing"):
        client.predict("nothing", "", api_name="/train")
    with pytest.raises(Exception, match="no scores of its pictures"):
        client.predict("reported", "best", api_name="/trials_by_rule")
    long = {"/before_after", "/apply", "/draw", "/train", "/sensitivity", "/decode_bits", "/trials_by_rule"}
    assert names == {*calls, *long}
    for bad in (("../x",), ("<b>",)):
        with pytest.raises(Exception, match="not a run below"):
            client.predict(*bad, api_name="/run")


def test_a_class_drags_while_others_draw(address: str) -> None:
    """Few sessions: that it works; benchmarks/app_load.py measures twenty."""
    from benchmarks.app_load import load

    found = load(address, sessions=3, decoding=1, seconds=1.5)
    assert found["faults"] == [] and found["answers"] >= 3 and found["drawn"] >= 1
