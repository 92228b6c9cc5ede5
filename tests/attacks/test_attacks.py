"""Every script of this folder is an attack: a file or folder that someone hands over, and what must stop it.

A script's docstring says what it tries and what stops it. Its ``attack(folder)`` writes what is handed over
and returns the words of a command; ``SAYS`` is in the one line that the command ends with, at status 2
(``STATUS``). The commands run one after the other in a process that notes every file they open, every process
they start and every connection.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ATTACKS = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("test_"))
#: Runs commands, each in its folder, and writes what each did and said to a file.
WATCHED = """
import contextlib, io, json, os, sys
events, outcomes = [], {}
NOTED = ("socket.connect", "socket.getaddrinfo", "os.system", "subprocess.Popen", "os.exec", "os.fork",
         "os.posix_spawn", "os.remove", "os.rename", "urllib.Request", "open", "import")
def note(event, arguments):
    if event in NOTED:
        events.append((event, str(arguments[0])))
sys.addaudithook(note)
from nearfar.cli import main
for name, (folder, words) in json.load(open(sys.argv[1])).items():
    os.chdir(folder)
    output = io.StringIO()
    del events[:]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = main(words)
        except BaseException as fault:
            status = f"{type(fault).__name__}: {fault}"
    outcomes[name] = (status, output.getvalue(), list(events))
json.dump(outcomes, open(sys.argv[2], "w"))
"""
#: What libraries run while they are imported, to find libraries of the system.
SYSTEM = ("ldconfig", "gcc", "cc", "ld", "objdump", "uname")


def load(name):
    spec = importlib.util.spec_from_file_location(f"attack_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of each attack: its folder, what was there before, and what became of it."""
    commands, before = {}, {}
    for name in ATTACKS:
        place = tmp_path_factory.mktemp(name)
        (place / "elsewhere").mkdir()
        (place / "elsewhere" / "secret").write_text("nobody reads this")
        (place / "handed over").mkdir()
        words = [str(word) for word in load(name).attack(place / "handed over")]
        commands[name] = (str(place), words)
        before[name] = set(place.rglob("*"))
    notes = tmp_path_factory.mktemp("notes")
    (notes / "commands.json").write_text(json.dumps(commands))
    command = [
        sys.executable,
        "-c",
        WATCHED,
        str(notes / "commands.json"),
        str(notes / "done.json"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEARFAR_CACHE", str(notes / "cache"))
        patch.delenv("NEARFAR_DATA", raising=False)
        subprocess.run(command, timeout=300, check=True, cwd=notes, capture_output=True)
    done = json.loads((notes / "done.json").read_text())
    return {name: (Path(commands[name][0]), before[name], *done[name]) for name in ATTACKS}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_stopped(name, outcomes):
    module = load(name)
    assert re.search(r"Tries .*Stopped by .*", module.__doc__, re.DOTALL)
    place, before, status, output, events = outcomes[name]
    assert status == getattr(module, "STATUS", 2), output[-2000:]
    assert re.search(module.SAYS, output), output[-2000:]
    assert "Traceback" not in output
    assert "\x1b" not in output
    assert set(place.rglob("*")) == before, "files that nobody asked for"
    for event, first in events:
        words = f"{event} {first}"
        assert not first.endswith("/secret"), words
        assert "owned" not in first, words
        if event in ("subprocess.Popen", "os.posix_spawn"):
            is_python = Path(first).name.startswith("python")
            assert Path(first).name in SYSTEM or (is_python and name.startswith("onnx")), words
        else:
            assert event in ("open", "import", "os.remove", "os.rename"), words
