"""A disk that is full, read-only, slow to answer or gone: one clear line, and what was there before stays."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from reliability.forking import count_changes, in_child, patch_changes, wait
from reliability.test_kills import command, files, train_small
from safetensors.torch import load_file

# They fork, which a process that has run torch's threads, as that of the whole suite, is not to.
pytestmark = pytest.mark.slow


def run(work, log):
    """Exit status and what the command said."""
    status = wait(in_child(work, log=log))
    return status, log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run, and how often it changes the disk."""
    out = tmp_path_factory.mktemp("whole")
    train_small(out / "run")
    return out / "run", count_changes(lambda: train_small(out / "again"), out)


def begun(out):
    """A run of one epoch, as a kill leaves it."""

    def killed():
        import nearfar.training.checkpoint_callback as callback

        real = callback.write_state
        saved = []

        def write(path, state):
            real(path, state)
            saved.append(path.name)
            if saved.count("last.ckpt") == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        callback.write_state = write
        train_small(out)

    assert wait(in_child(killed)) == -signal.SIGKILL


def is_one_clear_line(said, reason):
    lines = [line for line in said.splitlines() if line.startswith("nearfar train: error: ")]
    assert len(lines) == 1, said
    assert re.search(reason, lines[0]), lines[0]
    assert "Traceback" not in said, said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_every_change_of_the_disk_may_fail(whole, tmp_path, number):
    reference, changes = whole
    failed = 0
    for victim in range(1, changes + 1):
        out, log = tmp_path / str(victim), tmp_path / f"{victim}.log"

        def work(victim=victim, out=out):
            def act(call, name, real):
                # Temporary files that cannot be removed are nothing to stop for.
                if call == victim and name not in ("unlink", "remove", "rmdir"):
                    raise OSError(number, os.strerror(number), str(out))
                return real()

            patch_changes(act)
            command(out)

        status, said = run(work, log)
        if status != 0:
            failed += 1
            assert status == 2, said
            is_one_clear_line(said, os.strerror(number))
        assert wait(in_child(lambda out=out: train_small(out))) == 0
        assert files(out) == files(reference)
    assert failed >= changes // 3


@pytest.mark.parametrize("limit", [1, 2_000, 40_000, 120_000])
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_afterwards(whole, tmp_path, limit):
    out = tmp_path / "run"
    begun(out)
    state = (out / "checkpoints" / "last.ckpt").read_bytes()

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        command(out)

    log = tmp_path / "log"
    log.touch()
    status = wait(in_child(work, log="/dev/null"))
    assert status == 2
    if limit < len(state):
        assert (out / "checkpoints" / "last.ckpt").read_bytes() == state
    assert wait(in_child(lambda: train_small(out))) == 0
    assert files(out) == files(whole[0])


def test_a_small_disk_that_is_full(whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not os.system(
        f"mount -t tmpfs -o size=64k none {disk} 2>/dev/null"
    )
    if not mounted:
        pytest.skip("mounting a small disk needs rights")
    try:
        log = tmp_path / "log"
        status, said = run(lambda: command(disk / "run"), log)
        assert status == 2, said
        is_one_clear_line(said, "No space left on device")
        os.system(f"mount -o remount,size=20m {disk}")
        assert wait(in_child(lambda: train_small(disk / "run"))) == 0
        assert files(disk / "run") == files(whole[0])
        os.system(f"mount -o remount,ro {disk}")
        status, said = run(lambda: command(disk / "other"), log)
        assert status == 2, said
        assert "Read-only file system" in said
    finally:
        os.system(f"umount {disk}")


def test_a_folder_that_is_removed_under_a_run(tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"

    def work():
        import nearfar.training.checkpoint_callback as callback

        real = callback.write_state

        def write(path, state):
            if path.name == "last.ckpt":
                shutil.rmtree(out)
            real(path, state)

        callback.write_state = write
        command(out)

    status, said = run(work, log)
    # The folder is made again, or its loss is said: never a traceback.
    assert status in (0, 2), said
    assert "Traceback" not in said
    if status == 0:
        assert load_file(out / "weights.safetensors")


def test_a_clock_that_goes_backwards(whole, tmp_path):
    def work():
        real, calls = time.time, [0]

        def backwards():
            calls[0] += 1
            return real() - 86_400 * calls[0]

        time.time = backwards
        train_small(tmp_path / "run")

    assert wait(in_child(work)) == 0
    assert files(tmp_path / "run") == files(whole[0])


def test_two_runs_on_one_folder(tmp_path):
    out, log = tmp_path / "run", tmp_path / "log"

    def first():
        import nearfar.training.checkpoint_callback as callback

        real = callback.write_state

        def write(path, state):
            real(path, state)
            (tmp_path / "begun").touch()
            time.sleep(30)

        callback.write_state = write
        train_small(out)

    child = in_child(first)
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    status, said = run(lambda: command(out), log)
    os.kill(child, signal.SIGKILL)
    wait(child)
    assert status == 2
    is_one_clear_line(said, "another process trains in")
    assert wait(in_child(lambda: train_small(out))) == 0


def test_a_closed_output(tmp_path):
    """Nobody reads the output, as under ``| head``: the run ends, or stops in a state to go on from."""
    script = f"from reliability.test_kills import command; command({str(tmp_path / 'run')!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as process:  # fmt: skip
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode in (0, 141), said
    assert "Traceback" not in said
    assert wait(in_child(lambda: train_small(tmp_path / "run"))) == 0
