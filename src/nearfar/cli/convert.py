"""``nearfar convert`` on the command line."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.table import Table

from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.shipping import ConvertResult
from nearfar.shipping import convert as convert_model
from nearfar.shipping.conversion_page import summary, verdict

EXAMPLES = """\
  nearfar convert runs/digits_plain/weights.safetensors si --recalibrate
  nearfar convert resnet18@weights.pth antialias --layers layer3.*,layer4.* --data photos --recalibrate
  nearfar convert resnet18@pretrained pyramid-ensemble --data.source unlabelled --data.root photos --finetune
  nearfar convert resnet20_cifar@weights.th pyramid-ensemble --mean 0.485,0.456,0.406 \\
      --std 0.229,0.224,0.225 --data cifar10 --data.train 5000 --finetune --out runs/near_and_far
"""

_TYPES = {"model": str, "out": Path}


def run(arguments: list[str]) -> int:
    """Parses, runs, shows; 1 where the result is not accepted."""
    options = parse_call(convert_model, arguments, EXAMPLES, positional=True, types=_TYPES)
    with shown_progress() as progress:
        result = convert_model(**options, progress=progress)
    for sentence in summary(result):
        console.print(f"- {sentence}", highlight=False, soft_wrap=True)
    if result.audit is not None:
        console.print(_table(result))
        console.print(verdict(result), highlight=False, soft_wrap=True)
    else:
        console.print("Nothing was compared: no images were given.")
    weights = shlex.quote(str(result.path))
    data = "" if result.audit is not None and result.labelled else " --data DATA"
    following = f"nearfar audit {weights}{data}\n  nearfar export {weights} --out model.onnx"
    if not result.rebuilt:
        following = f"network = nearfar.load_checkpoint({str(result.path)!r}, network).model"
    console.print(f"\nNext:\n  {following}", highlight=False, soft_wrap=True)
    return 1 if result.accepted is False else 0


def _table(result: ConvertResult) -> Table:
    assert result.audit is not None, "there are figures"
    count = len(result.audit.results["original"].curve.labels)
    what = "right" if result.labelled else "answered as the original does at scale 1"
    table = Table(title=f"{what}, in per cent of {count} held-out images")
    before, after = result.right("original"), result.right("converted")
    for heading in ("size", "original", "converted", "gain"):
        table.add_column(heading, justify="right")
    for scale in sorted(before):
        gain = after[scale] - before[scale]
        table.add_row(
            f"{scale:g}×",
            f"{100 * before[scale]:.1f}",
            f"{100 * after[scale]:.1f}",
            f"{100 * gain:+.1f}",
        )
    return table
