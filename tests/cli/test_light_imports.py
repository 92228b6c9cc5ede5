"""A command's help is written without torch, and says what it would say with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nearfar.cli.light_imports import light_imports
from nearfar.cli.main import COMMANDS

PROGRAM = """
import sys
from nearfar.cli import main
sys.argv[1:] = {words}
try:
    status = main()
except SystemExit as stop:
    status = stop.code
real = [n for n in ("torch", "timm", "lightning", "torchvision", "matplotlib") if n in sys.modules]
print(status, *real, file=sys.stderr)
"""


def run(*words):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=list(words))],
        capture_output=True,
        text=True,
        check=True,
    )


#: Every command's help with all that it imports, in a process in which no test has registered anything.
FULL = """
import contextlib, io, json
from nearfar.cli import main
from nearfar.cli.main import COMMANDS
texts = {}
for name in COMMANDS:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([name, "--help"])
    texts[name] = output.getvalue()
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def full_help():
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-c", FULL]
    return json.loads(
        subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_no_torch_and_is_the_same(full_help, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    light = run(name, "--help")
    assert light.stderr.split() == ["0"]
    assert light.stdout == full_help[name]


@pytest.mark.parametrize("words", [(), ("--help",), ("--version",), ("trian",)])
def test_what_is_no_command_imports_nothing(words):
    assert run(*words).stderr.split()[-1] in ("0", "2")


def test_what_was_imported_is_forgotten_also_after_an_error():
    code = """
import sys
from nearfar.cli.light_imports import light_imports
before = set(sys.modules), list(sys.meta_path)
with light_imports():
    import torch
    import nearfar.layers
    assert torch.nn.Module.anything is not None
    assert "torch" in sys.modules
    raise TypeError("some module needs the real torch")
assert (set(sys.modules), sys.meta_path) == before
import torch, nearfar
assert nearfar.SIConv2d(3, 4, 3)(torch.rand(1, 3, 8, 8)).shape[1] == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_end_of_the_process_is_not_held_up():
    with pytest.raises(SystemExit), light_imports():
        raise SystemExit(0)
