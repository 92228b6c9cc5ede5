"""The quickstart as a stranger meets it: whole, killed, and in a browser."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.slow

COMMAND = [
    sys.executable,
    "-c",
    "from nearfar.cli import main; raise SystemExit(main())",
    "quickstart",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    started = time.monotonic()
    subprocess.run([*COMMAND, "--out", str(out)], check=True)
    return out, time.monotonic() - started


def test_scale_aware_nets_hold_where_the_plain_one_falls(whole):
    out, _ = whole
    models = json.loads((out / "results.json").read_text())["models"]
    plain = models["plain"]["accuracy"]
    assert plain["1.0"] > 0.9
    for scale in ("0.5", "2.0"):
        best = max(m["accuracy"][scale] for m in models.values())
        assert best - plain[scale] >= 0.30, scale
    assert models["si"]["accuracy"]["1.5"] > plain["1.5"]
    assert models["si"]["accuracy"]["0.75"] > plain["0.75"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_anywhere_it_leaves_nothing_half_and_continues_to_the_same_end(tmp_path, how):
    reference = tmp_path / "reference"
    subprocess.run([*COMMAND, "--fast", "--out", str(reference)], check=True)
    expected = (reference / "results.json").read_bytes()
    out = tmp_path / "killed"
    chance = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(
            [*COMMAND, "--fast", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(chance.uniform(6, 16))
        process.send_signal(how)
        _, err = process.communicate()
        if how == signal.SIGINT and process.returncode:
            assert process.returncode in (130, -signal.SIGINT), err.decode()
        whole_or_absent(out, expected)
    subprocess.run([*COMMAND, "--fast", "--out", str(out)], check=True)
    assert (out / "results.json").read_bytes() == expected
    assert (out / "report.html").read_text().rstrip().endswith("</html>")


def whole_or_absent(out, expected):
    for weights in out.glob("models/*/weights.safetensors"):
        with safe_open(str(weights), framework="pt") as file:
            assert file.metadata()["nearfar"]
    if (out / "results.json").exists():
        assert (out / "results.json").read_bytes() == expected
    if (out / "report.html").exists():
        assert (out / "report.html").read_text().rstrip().endswith("</html>")


def browser():
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


@pytest.mark.skipif(not browser(), reason="needs Chromium")
def test_the_report_opens_without_network_and_without_a_console_message(whole, tmp_path):
    out, _ = whole
    done = subprocess.run(
        [
            browser(),
            "--headless",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path}",
            "--enable-logging=stderr",
            "--log-level=0",
            "--dump-dom",
            (out / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert "trained here" in done.stdout
    assert done.stdout.rstrip().endswith("</html>")
