"""``nearfar train`` on the command line."""

from __future__ import annotations

import shlex

from lightning.pytorch.utilities import rank_zero_only

from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.training import train

EXAMPLES = """\
  nearfar train --config recipes/digits_si.yaml
  nearfar train --config recipes/digits_si.yaml --fit.epochs 30 --out runs/longer
  nearfar train --model.name cnn_small --data.protocol.train_scales '[0.5,1,2]' --out runs/augmented
"""


def run(arguments: list[str]) -> None:
    """Parses, runs, shows."""
    options = parse_call(train, arguments, EXAMPLES)
    with shown_progress() as progress:
        trained = train(**options, progress=progress)
    if getattr(
        rank_zero_only, "rank", 0
    ):  # under torchrun and Slurm the first process speaks for all
        return
    record = trained.record
    console.print(
        f"{trained.recipe.model.name}: best epoch {record['best_epoch']} of "
        f"{trained.recipe.fit.epochs}, {record['validation_accuracy']:.1%} of the validation images "
        f"right\n\nNext:\n  nearfar audit {shlex.quote(str(trained.path))}",
        highlight=False,
        soft_wrap=True,
    )
