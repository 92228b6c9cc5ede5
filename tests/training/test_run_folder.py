"""One process at a time trains in a folder."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec, train
from nearfar.training.run_folder import LOCK, claimed

DATA = DataSpec(protocol=ScaleProtocol(16, 12), train=32, validation=20, test=20)
RECIPE = Recipe(ModelSpec(), DATA, FitSpec(epochs=1), 0, TrainerSpec())
BUSY = "another process trains in .*; wait for it, or choose another folder"

needs_flock = pytest.mark.skipif(fcntl is None, reason="Windows locks in another way")

# Claims a folder, starts a process by fork that would outlive it, says so, and dies without a word.
DIES = """
import os, pathlib, signal, sys, time
from nearfar.training import Recipe
from nearfar.training.run_folder import claimed
recipe = Recipe.from_dict(eval(sys.argv[2]))
with claimed(pathlib.Path(sys.argv[1]), recipe):
    child = os.fork()
    if not child:
        sys.stdout.close()
        time.sleep(600)
    print(child, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@needs_flock
def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    refused = []

    def second(step):
        with pytest.raises(InputError, match=BUSY):
            train(RECIPE.model, DATA, RECIPE.fit, out=tmp_path)
        refused.append(step.done)

    train(RECIPE.model, DATA, RECIPE.fit, out=tmp_path, progress=second)
    assert refused == [1]
    assert not (tmp_path / LOCK).exists()


@needs_flock
def test_a_killed_run_s_lock_ends_with_it_and_its_file_is_no_content(tmp_path):
    command = [sys.executable, "-c", DIES, str(tmp_path), repr(RECIPE.as_dict())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(InputError, match=BUSY), claimed(tmp_path, RECIPE):
                pass
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(60) == -signal.SIGKILL
            assert (tmp_path / LOCK).exists()
            with claimed(tmp_path, RECIPE):  # though the process it forked lives on
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / LOCK).touch()
    with claimed(tmp_path, RECIPE):
        assert (tmp_path / "config.yaml").exists()
    assert not (tmp_path / LOCK).exists()


def test_a_refused_folder_is_left_as_it_was_and_not_locked(tmp_path):
    (tmp_path / "notes.txt").touch()
    for _ in range(2):
        with pytest.raises(InputError, match="is not empty"), claimed(tmp_path, RECIPE):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@needs_flock
def test_a_lock_file_that_its_holder_has_removed_is_not_taken_for_the_folder_s(
    tmp_path, monkeypatch
):
    flock, calls = fcntl.flock, []

    def slow(handle, how):
        flock(handle, how)
        calls.append(1)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()  # another run ended between opening and locking

    monkeypatch.setattr(fcntl, "flock", slow)
    with claimed(tmp_path, RECIPE):
        assert len(calls) == 2
        with pytest.raises(InputError, match=BUSY), claimed(tmp_path, RECIPE):
            pass


@needs_flock
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_without_locks_training_goes_on(tmp_path, monkeypatch, caplog, code):
    def unsupported(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with caplog.at_level(logging.WARNING, "nearfar"), claimed(tmp_path, RECIPE):
        assert not (tmp_path / LOCK).exists()
    assert f"cannot be locked ({os.strerror(code)})" in caplog.text


@needs_flock
def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # not by chmod, which does not keep root out
        patch.setattr(os, "open", denied)
        with (
            pytest.raises(
                InputError, match="cannot write in .*: Permission denied; choose another"
            ),
            claimed(tmp_path, RECIPE),
        ):
            pass
    assert not any(tmp_path.iterdir())
