"""Several processes share the images of an audit: the same figures, and nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import nearfar
from nearfar.auditing import AuditSpec, finished_batches
from nearfar.auditing.finished_batches import FinishedBatches
from nearfar.classifiers import load_classifier
from nearfar.errors import InputError
from nearfar.peers import ALONE, Peers, joined_peers

NET = "cnn_mnist_scale@pretrained"
SPEC = AuditSpec(scales=(0.5, 1.0), batch_size=8, flips=5)
WORDS = f"audit {NET} --data sample_digits --scales 0.5,1 --batch_size 8 --flips 5".split()
COMMAND = [sys.executable, "-c", "import sys; from nearfar.cli import main; sys.exit(main())"]


#: Writes each batch's answers at once, and then takes its time.
EAGER = """
import sys, time
from nearfar.auditing import finished_batches
from nearfar.auditing.finished_batches import FinishedBatches
finished_batches._EVERY_S = 0.0
save = FinishedBatches.save
def slow_save(*arguments, **options):
    save(*arguments, **options)
    time.sleep(5)
FinishedBatches.save = slow_save
from nearfar.cli import main
sys.exit(main())
"""


class Counted(torch.nn.Module):
    """Counts the images that it is asked about; may be interrupted."""

    def __init__(self, limit=10**9):
        super().__init__()
        self.net = load_classifier(NET).module
        self.limit, self.count = limit, 0

    def forward(self, images):
        self.count += len(images)
        if self.count > self.limit:
            raise KeyboardInterrupt
        return self.net(images)


def figures(path):
    """What an audit has measured, but for times."""
    record = json.loads((path / "audit.json").read_text())

    def without(value):
        if isinstance(value, dict):
            times = ("seconds", "command", "machine", "memory_bytes")
            return {k: without(v) for k, v in value.items() if not any(t in k for t in times)}
        return [without(v) for v in value] if isinstance(value, list) else value

    return without(record)


def audited(network, out=None):
    spec = nearfar.auditing.AuditSpec(scales=(0.5, 1.0), batch_size=8, flips=0)
    inputs = nearfar.classifiers.InputOptions(size=28, num_classes=10)
    return nearfar.audit({"net": network}, "sample_digits", spec, inputs=inputs, out=out).only


def test_every_batch_has_one_owner():
    batches = list(range(11))
    shares = [Peers(rank, 3).share(batches) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == batches
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ALONE.share(batches) == batches
    assert ALONE.of_first(lambda: 7) == 7


def test_a_command_of_its_own_is_alone(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with joined_peers() as peers:
        assert peers == ALONE


def test_an_interrupted_audit_goes_on_with_the_batches_left(tmp_path, monkeypatch):
    monkeypatch.setattr(finished_batches, "_EVERY_S", 0.0)
    whole = audited(Counted(), tmp_path / "whole")
    once = Counted()
    audited(once, tmp_path / "again")
    first = Counted(limit=60)
    with pytest.raises(KeyboardInterrupt):
        audited(first, tmp_path / "out")
    assert (tmp_path / "out" / "audit-batches-0.safetensors").exists()
    second = Counted()
    rest = audited(second, tmp_path / "out")
    # Two scales: 16 images a batch, of which 3 were whole.
    assert once.count - second.count == 3 * 16
    assert figures(tmp_path / "out") == figures(tmp_path / "whole")
    torch.testing.assert_close(rest.curve.confidence, whole.curve.confidence, rtol=0, atol=0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["audit.json", "report.html"]


def test_answers_of_other_weights_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(finished_batches, "_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        audited(Counted(limit=60), tmp_path)
    changed = Counted()
    with torch.no_grad():
        next(changed.net.parameters()).mul_(1.5)
    result = audited(changed, tmp_path)
    assert torch.equal(result.curve.predictions, audited(changed).curve.predictions)


def test_a_damaged_file_of_answers_is_passed_over(tmp_path):
    (tmp_path / "audit-batches-0.safetensors").write_bytes(b"\x08\x00\x00")
    done = FinishedBatches(tmp_path, 0, "key").load({}, [torch.arange(3)])
    assert not done.any()


def test_two_processes_measure_what_one_does(tmp_path):
    nearfar.audit(NET, "sample_digits", SPEC, out=tmp_path / "one")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--no-python",
    ]
    done = subprocess.run(
        [*torchrun, *COMMAND, *WORDS, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert figures(tmp_path / "two") == figures(tmp_path / "one")
    assert done.stdout.count("see ") == 1  # the first process alone reports
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["audit.json", "report.html"]


def slurm(rank, count, port):
    """The environment of a task of Slurm's."""
    return {
        **os.environ,
        "SLURM_NTASKS": str(count),
        "SLURM_NTASKS_PER_NODE": str(count),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_JOB_NAME": "audit",
        "SLURM_JOB_ID": str(port),
        "SLURM_NODELIST": "localhost",
        "MASTER_PORT": str(port),
    }


@pytest.mark.slow
def test_three_tasks_of_slurm_measure_what_one_process_does(tmp_path, unused_port):
    nearfar.audit(NET, "sample_digits", SPEC, out=tmp_path / "one")
    command = [*COMMAND, *WORDS, "--out", str(tmp_path / "three")]
    tasks = [
        subprocess.Popen(command, env=slurm(rank, 3, unused_port), stdout=subprocess.DEVNULL)
        for rank in range(3)
    ]
    assert [task.wait(120) for task in tasks] == [0, 0, 0]
    assert figures(tmp_path / "three") == figures(tmp_path / "one")


@pytest.mark.slow
def test_a_lost_process_ends_the_other_and_its_answers_stay(tmp_path, unused_port):
    out = tmp_path / "out"
    command = [*COMMAND, *WORDS, "--out", str(out)]
    first = subprocess.Popen(
        command,
        env=slurm(0, 2, unused_port),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    eager = [sys.executable, "-c", EAGER, *command[3:]]
    second = subprocess.Popen(eager, env=slurm(1, 2, unused_port), stdout=subprocess.DEVNULL)
    while not (out / "audit-batches-1.safetensors").exists() and second.poll() is None:
        time.sleep(0.001)
    second.send_signal(signal.SIGKILL)
    second.wait()
    started = time.monotonic()
    _, faults = first.communicate(timeout=100)
    assert time.monotonic() - started < 60
    assert first.returncode == 2, faults
    assert "another process of this command has ended" in faults


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_what_cannot_be_reached_is_said(monkeypatch):
    monkeypatch.setattr("nearfar.peers._environment", lambda: (1, 2, "tcp://127.0.0.1:9"))
    with pytest.raises(InputError, match=r"process 1 of 2 does not reach .*9"), joined_peers(1.0):
        pass
