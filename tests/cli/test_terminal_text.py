"""Names from files and other people do nothing to a terminal."""

from __future__ import annotations

import io
import json
import logging

import pytest
import torch
from PIL import Image
from rich.table import Table

from nearfar.classifiers import Classifier, InputSpec
from nearfar.cli import main
from nearfar.cli.display import make_console
from nearfar.cli.terminal_text import VisibleFormatter, visible
from nearfar.data import ScaleProtocol
from nearfar.deploy import predict

#: Clears the screen, sets the title, rings, overwrites the line, turns the text round.
HOSTILE = "cat\x1b[2J\x1b]0;title\x07\x1b[31m\rdog\u202egpj.\x9b1m"


def test_control_characters_are_written_out():
    assert visible("a\tb\n") == "a\tb\n"
    assert visible("\x1b[31mred\x07\x9b") == r"\x1b[31mred\x07\x9b"
    assert visible("\u202egpj.exe") == r"\u202egpj.exe"
    assert visible("Größe 日本 🙂 ½×") == "Größe 日本 🙂 ½×"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_console_prints(is_terminal):
    file = io.StringIO()
    on = make_console(file=file, force_terminal=is_terminal, width=120)
    table = Table(title="[bold]names[/bold]")
    table.add_column("name")
    table.add_row(HOSTILE)
    on.print(table)
    on.print(f"one {HOSTILE} two", markup=False, highlight=False, soft_wrap=True)
    text = file.getvalue()
    for harmful in ("\x1b[2J", "\x1b]0;", "\x07", "\x1b[31m", "\r", "\u202e", "\x9b"):
        assert harmful not in text
    assert text.count(r"\x1b[2J") == 2
    assert ("\x1b[1m" in text) == is_terminal, "the table's own bold stays"


def test_the_command_line(tmp_path, capsys, monkeypatch):
    names = (HOSTILE, "other")
    spec = InputSpec("net", 3, ScaleProtocol(canvas=8, content=8), 2, names)
    opened = Classifier(spec, lambda x: torch.stack([x.sum((1, 2, 3)) + 9, x.sum((1, 2, 3))], 1))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    monkeypatch.setattr(
        "nearfar.cli.predict.predict_images", lambda _, *a, **k: predict(opened, *a, **k)
    )
    for layout in ("table", "jsonl"):
        assert main(["predict", "net", str(tmp_path / "x.png"), "--format", layout]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x07" not in out
        if layout == "jsonl":
            assert json.loads(out)["label"] == HOSTILE
    monkeypatch.undo()
    assert main(["predict", f"runs/{HOSTILE}.onnx", str(tmp_path / "x.png")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_warnings(capsys):
    record = logging.LogRecord("nearfar", logging.WARNING, "", 0, "%s is odd", (HOSTILE,), None)
    assert VisibleFormatter().format(record) == f"{visible(HOSTILE)} is odd"
