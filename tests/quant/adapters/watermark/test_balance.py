from __future__ import annotations

import json

from quant.adapters.watermark.balance import Balance
from quant.adapters.watermark.config import WatermarkConfig

CONFIG = WatermarkConfig(increment=0.25, psnr_cap=33.0, match_cap=0.98)


def test_a_missed_message_gains_twice_what_a_missed_picture_gains() -> None:
    balance = Balance(CONFIG)
    balance.update(psnr=20.0, match=0.5)  # both missed: the message first
    assert (balance.picture, balance.message) == (1.0, 0.5)
    balance.update(psnr=20.0, match=0.95)
    assert (balance.picture, balance.message) == (1.25, 0.5)
    balance.update(psnr=31.0, match=0.95)  # both met: nothing but counters
    assert (balance.picture, balance.message, balance.psnr_met, balance.match_met) == (1.25, 0.5, 1, 2)


def test_targets_rise_after_patience_and_stay_below_their_caps() -> None:
    balance = Balance(CONFIG)
    for _ in range(CONFIG.patience):
        balance.update(psnr=40.0, match=0.999)
    assert (balance.psnr_target, balance.match_target) == (32.5, 0.98)
    for _ in range(10 * CONFIG.patience):
        balance.update(psnr=40.0, match=0.999)
    assert (balance.psnr_target, balance.match_target) == (33.0, 0.98)
    assert (balance.picture, balance.message) == (1.0, 0.0)  # a target that can be met costs nothing


def test_a_run_of_met_targets_begins_anew_after_a_miss() -> None:
    balance = Balance(CONFIG)
    for match in [0.95] * (CONFIG.patience - 1) + [0.8] + [0.95] * (CONFIG.patience - 1):
        balance.update(psnr=40.0, match=match)
    assert balance.match_target == CONFIG.match_target


def test_state_goes_through_a_file() -> None:
    trace = [(25.0, 0.6), (31.0, 0.93), (33.0, 0.99)] * 4
    whole, first = Balance(CONFIG), Balance(CONFIG)
    for psnr, match in trace:
        whole.update(psnr, match)
    for psnr, match in trace[:5]:
        first.update(psnr, match)
    second = Balance.restored(CONFIG, json.loads(json.dumps(first.plain())))
    for psnr, match in trace[5:]:
        second.update(psnr, match)
    assert second == whole
