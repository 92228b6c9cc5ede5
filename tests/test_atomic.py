from __future__ import annotations

import signal
import stat
import subprocess
import sys

import pytest

from nearfar.atomic import atomic_path, make_folder, write_atomically
from nearfar.errors import InputError


def test_writes_a_whole_file_with_ordinary_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    target = tmp_path / "deep" / "file.txt"
    write_atomically(target, "grüße")
    assert target.read_text(encoding="utf-8") == "grüße"
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, fault):
    target = tmp_path / "file.bin"
    write_atomically(target, b"old")

    def interrupted():
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of the new")
            raise fault

    with pytest.raises(fault):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


WRITER = """
import os, signal, sys
from pathlib import Path
from nearfar.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half of the new")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_at_the_next_start_and_a_living_one_s_stays(tmp_path):
    target = tmp_path / "model[1].onnx"
    write_atomically(target, b"old")
    command = [sys.executable, "-c", WRITER, str(target)]
    assert subprocess.run([*command, "killed"], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert target.read_bytes() == b"old"
    with subprocess.Popen(
        [*command, "living"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout.readline() == b"writing\n"
        write_atomically(tmp_path / "model[1].json", b"another file's")
        write_atomically(target, b"new")
        (other,) = (path for path in tmp_path.iterdir() if path.name.startswith("."))
        assert f"-{living.pid}-" in other.name
        living.stdin.close()
    assert target.read_bytes() == b"half of the new"  # the one that ended last
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model[1].json", "model[1].onnx"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot make the folder .*file/inside"):
        make_folder(tmp_path / "file" / "inside")
