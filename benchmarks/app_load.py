"""Load the app as a class of students would: sessions that drag a slider while others decode.

::

    python -m benchmarks.app_load                     # 20 sessions dragging, 4 drawing, 20 s
    python -m benchmarks.app_load --address http://127.0.0.1:7860

A session has a layer of its own, drags bits and clip, and sends its next position a moment after it has the
answer to the last one, as the app's sliders do. Each has a name, as a browser's has.
Prints the time from asking to the whole answer on loopback; ends with 1 if p95 is above the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

LIMIT = 0.4
"""Seconds within which 95 of 100 answers must be there."""
PAUSE = 0.25
"""Seconds between an answer and the next position of a slider."""


def call(client: httpx.Client, name: str, values: list[Any]) -> str:
    """Call an endpoint of the app and wait for its last event; returns the event's name."""
    begun = client.post(f"/gradio_api/call/{name}", json={"data": values})
    begun.raise_for_status()
    event = ""
    with client.stream("GET", f"/gradio_api/call/{name}/{begun.json()['event_id']}") as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                event = line[7:]
    return event


def ask(client: httpx.Client, name: str, values: list[Any], session: str) -> str:
    """Ask an endpoint that stands outside of the queue, as sliders do; "complete", or the status."""
    answer = client.post(f"/gradio_api/run/{name}", json={"data": values, "session_hash": session})
    return "complete" if answer.status_code == 200 else f"status {answer.status_code}"


def drag(
    address: str, until: float, number: int, times: list[float], faults: list[str], layers: list[str]
) -> None:  # fmt: skip
    """Drag the bits and the clip of one layer up and down until a time; note how long it took."""
    with httpx.Client(base_url=address, timeout=60) as client:
        given = ["dit-64", layers[number % len(layers)], "int", 8, "tensor", 1.0, ""]
        ask(client, "what_if", given, f"drag{number}")  # its page is open
        time.sleep(PAUSE * (number % 10) / 10)  # not all at once
        step = number
        while time.monotonic() < until:
            bits, clip, began = 3 + step % 6, 1 - step % 90 / 100, time.monotonic()
            given = ["dit-64", layers[number % len(layers)], "int", bits, "tensor", clip, ""]
            event = ask(client, "what_if", given, f"drag{number}")
            times.append(time.monotonic() - began)
            if event != "complete":
                faults.append(event)
            step += 1
            time.sleep(PAUSE)


def decode(address: str, until: float, number: int, done: list[float], faults: list[str]) -> None:
    """Draw pictures with a recipe, one job after the other (sessions take turns on the device)."""
    with httpx.Client(base_url=address, timeout=300) as client:
        seed = 100 * number
        while time.monotonic() < until:
            began = time.monotonic()
            event = call(client, "draw", ["dit-64", ["rtn-w8a8"], 1, 4, 1, seed, False, ""])
            done.append(time.monotonic() - began)
            if event != "complete":
                faults.append(event)
            seed += 1


def load(address: str, sessions: int, decoding: int, seconds: float) -> dict[str, Any]:
    """Run all sessions at once against a running app.

    Returns
    -------
    dict
        ``answers``, ``p50_ms``, ``p95_ms``, ``most_ms`` of the drags, ``drawn`` and ``faults``.
    """
    with httpx.Client(base_url=address, timeout=120) as client:
        answer = client.post("/gradio_api/run/layers", json={"data": ["dit-64", "", ""]}).json()
    layers = [row[0] for row in answer["data"][0]["data"]]
    times: list[float] = []
    drawn: list[float] = []
    faults: list[str] = []
    until = time.monotonic() + seconds
    jobs: list[tuple[Any, tuple[Any, ...]]] = []
    jobs += [(drag, (address, until, i, times, faults, layers)) for i in range(sessions)]
    jobs += [(decode, (address, until, i, drawn, faults)) for i in range(decoding)]
    threads = [threading.Thread(target=do, args=given) for do, given in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not times:
        raise RuntimeError(f"no session had an answer: {faults[:3]}")
    p50, p95, most = (float(x) * 1e3 for x in np.quantile(times, (0.5, 0.95, 1)))
    return {
        "answers": len(times), "p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "most_ms": round(most, 1),
        "drawn": len(drawn), "faults": faults,
    }  # fmt: skip


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """Start the app in a process of its own; yields its address."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-P", "-m", "lab.cli.main", "app", "--port", "0", "--runs", str(runs)]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        assert server.stderr is not None
        found = next((m for line in server.stderr if (m := re.search(r"open (http://[\d.:]+)/", line))), None)
        if found is None:
            raise RuntimeError("the app did not start")
        yield found[1]
    finally:
        server.terminate()
        server.wait(20)


def main() -> int:
    """Parse the command line, load the app, print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--sessions", type=int, default=20, help="sessions that drag")
    options.add_argument("--decoding", type=int, default=4, help="sessions that draw")
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--address", default="", help="of a running app; empty: start one")
    options.add_argument("--runs", type=Path, default=Path("runs"))
    given = options.parse_args()
    if given.address:
        found = load(given.address, given.sessions, given.decoding, given.seconds)
    else:
        with served(given.runs) as address:
            found = load(address, given.sessions, given.decoding, given.seconds)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return int(bool(found["faults"]) or found["p95_ms"] > LIMIT * 1e3)


if __name__ == "__main__":
    sys.exit(main())
