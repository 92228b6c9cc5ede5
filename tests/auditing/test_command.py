"""An audit says by which command it is made again."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nearfar.auditing import audit
from nearfar.auditing.output import command_of


def told(models, **given):
    defaults = dict(zip(audit.__code__.co_varnames[1:], audit.__defaults__, strict=False))
    return command_of(audit, {"models": models, **defaults, **given})


def test_what_was_given_is_written_as_it_is_typed():
    assert told("a.onnx") == "nearfar audit a.onnx"
    assert told([Path("a b.onnx"), "c"], scales=(0.5, 1.0), layers=True, images=20) == (
        "nearfar audit 'a b.onnx' c --scales=0.5,1 --images=20 --layers"
    )
    assert told("a", require=("top1@0.5>=0.8",), max_loss=0.1) == (
        "nearfar audit a '--require=top1@0.5>=0.8' --max_loss=0.1"
    )


def test_what_has_no_name_has_no_command():
    assert told(nn.Identity()) == ""
    assert told({"mine": nn.Identity()}) == ""
    assert told("a", data=nn.Identity()) == ""
