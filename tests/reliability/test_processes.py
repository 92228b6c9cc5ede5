"""One of two training processes is killed or stops answering: the other ends with a message, and resumes."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from reliability.forking import in_child
from safetensors.torch import load_file

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train
from nearfar.training.run_folder import last_path

DATA = DataSpec("digits", protocol=ScaleProtocol(8, 8), train=60, validation=10, test=10)
FIT = FitSpec(epochs=40, batch_size=10)
TWO = TrainerSpec(devices=2, strategy="ddp", save_every=2, peer_timeout=15)


def children(parent):
    """Processes that a process started, by number."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            yield int(path.parent.name)


def trainers(parent):
    """The training processes below a process."""
    words = (b"multiprocessing.spawn", b"spawn_main")
    return [
        child for child in children(parent)
        if any(word in Path(f"/proc/{child}/cmdline").read_bytes() for word in words)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            signal.SIGKILL,
            "training process . was ended by signal 9|another process of this run has ended",
        ),
        (signal.SIGSTOP, "another process of this run has ended, or did not answer within 15 s"),
    ],
)
def test_a_process_that_is_killed_or_hangs(tmp_path, number, message):
    out, log = tmp_path / "run", tmp_path / "log"

    def work():
        try:
            train(ModelSpec("cnn_small"), DATA, FIT, TWO, out=out)
        except InputError as fault:
            log.write_text(str(fault))

    parent = in_child(work)
    while not last_path(out).exists():
        time.sleep(0.05)
    running = sorted(trainers(parent))
    assert len(running) == 2
    os.kill(running[1], number)
    began = time.monotonic()
    while not log.exists():
        time.sleep(0.05)
        assert time.monotonic() - began < 60
    assert re.search(message, log.read_text())
    os.waitpid(parent, 0)
    for child in running:  # no orphans
        assert not Path(f"/proc/{child}").exists()
    resumed = train(ModelSpec("cnn_small"), DATA, FIT, TWO, out=out)
    whole = train(ModelSpec("cnn_small"), DATA, FIT, TWO, out=tmp_path / "whole")
    tensors = load_file(whole.path)
    assert all(tensor.equal(tensors[name]) for name, tensor in load_file(resumed.path).items())
