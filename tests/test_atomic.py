from __future__ import annotations

import stat

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


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot make the folder .*file/inside"):
        make_folder(tmp_path / "file" / "inside")
