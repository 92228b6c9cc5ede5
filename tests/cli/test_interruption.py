"""Ctrl-C ends any command within two seconds, with status 130; a training goes on from there."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train
from nearfar.training.run_folder import WEIGHTS

#: A command that runs a given body in place of ``nearfar count``.
STAND_IN = """
import hashlib, sys, time, types
module = types.ModuleType("nearfar.cli.count")
def run(words):
    print("ready", flush=True)
    {body}
module.run = run
sys.modules["nearfar.cli.count"] = module
from nearfar.cli import main
sys.argv[1:] = ["count"]
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", "import sys; from nearfar.cli import main; sys.exit(main())"]
LIMIT = 2.0


@pytest.fixture(autouse=True)
def an_interruption_is_not_ignored():
    """A background shell starts its commands with Ctrl-C ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(process):
    """Status, standard error and the seconds it took to end."""
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, err, time.monotonic() - started


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)",  # minutes within one call into C
        "while True:\n        try: time.sleep(0.1)\n        except BaseException: pass",
        "try: time.sleep(60)\n    except BaseException: raise ImportError('half imported')",
        "from multiprocessing import Process\n    p = Process(target=time.sleep, args=(60,))\n    "
        "p.start()\n    p.join()",
    ],
)
def test_whatever_a_command_does_it_ends_in_time(body):
    with subprocess.Popen(
        [sys.executable, "-c", STAND_IN.format(body=body)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        status, err, seconds = interrupt(process)
    assert status == 130
    assert seconds < LIMIT
    assert err.count("start the same command again to continue") == 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_an_interrupted_training_ends_in_time_and_goes_on_to_the_same_weights(tmp_path, devices):
    data = DataSpec(protocol=ScaleProtocol(16, 12), train=300, validation=60, test=60)
    spec = FitSpec(epochs=300 // devices)
    trainer = TrainerSpec(devices=devices, save_every=2)
    whole = train(ModelSpec(), data, spec, trainer, seed=3, out=tmp_path / "whole")
    out = tmp_path / "out"
    command = [
        *COMMAND, "train", "--config", str(tmp_path / "whole" / "config.yaml"), "--out", str(out),
    ]  # fmt: skip
    delays = random.Random(devices)
    interruptions = 0
    for _ in range(8):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(delays.uniform(0.5, 12 * devices))
            status, err, seconds = interrupt(process)
        if (out / WEIGHTS).exists():
            break
        interruptions += 1
        assert status == 130, err
        assert seconds < LIMIT
        assert "Traceback" not in err
    assert interruptions >= 3
    subprocess.run(command, check=True, capture_output=True)
    weights, expected = load_file(out / "weights.safetensors"), load_file(whole.path)
    assert all(weights[name].equal(tensor) for name, tensor in expected.items())
