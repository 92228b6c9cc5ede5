"""An audit says by which command it is made again."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nearfar.auditing import AuditSpec, ImageSelection
from nearfar.auditing.output import command_of
from nearfar.classifiers import InputOptions


def command(models, data="", spec=AuditSpec(), selection=ImageSelection(), **options):
    return command_of(
        models, data, spec, selection, InputOptions(size=options.pop("size", None)), **options
    )


def test_settings_are_written_as_they_are_typed():
    assert command("a.onnx") == "nearfar audit a.onnx"
    assert command(
        [Path("a b.onnx"), "c"], "", AuditSpec((0.5, 1.0), True), ImageSelection(count=20)
    ) == ("nearfar audit 'a b.onnx' c --scales=0.5,1 --layers --images=20")
    assert command(
        "a", "photos", AuditSpec(max_loss=0.1), require=("top1@0.5>=0.8",), size=32, out=Path("b")
    ) == (
        "nearfar audit a --data=photos '--require=top1@0.5>=0.8' --out=b --max_loss=0.1 --size=32"
    )


def test_what_has_no_name_has_no_command():
    assert command(nn.Identity()) == ""
    assert command({"mine": nn.Identity()}) == ""
    assert command("a", nn.Identity()) == ""
