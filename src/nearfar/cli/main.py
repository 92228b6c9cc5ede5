"""``nearfar``: finds the command, and turns bad input into one line and exit status 2."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import textwrap
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

#: Each command lives in the module of its name beside this file, which is imported only when asked for.
COMMANDS = {
    "quickstart": "Train a plain net and its scale-aware twins on digits; see who holds where.",
    "train": "Train one net under one recipe.",
    "audit": "Measure how a trained net's accuracy changes with the size of things.",
    "convert": "Make a trained network scale-aware, and hold it against what it was.",
    "export": "Write a net as ONNX or a torch.export program, checked against the original.",
    "predict": "Ask a net, or an exported file, about images.",
    "reproduce": "Run one of the papers' comparisons and set our figures beside theirs.",
    "count": "Count a network layer by layer: units, connections, weights, receptive fields.",
}

_HELP = """\
nearfar makes image recognisers that know a thing whether it is near or far,
and measures how well any recogniser does.

usage: nearfar COMMAND [OPTIONS]

commands:
{commands}

start here:
  nearfar quickstart
      five nets learn digits at one size and are tested at nine (about two
      minutes); then open runs/quickstart/report.html
  nearfar train --config recipes/digits_si.yaml
      the same net from a file that you can change
  nearfar audit runs/digits_si/weights.safetensors
      its accuracy from 0.3 to 2 times the size it was trained at
  nearfar convert runs/digits_si/weights.safetensors antialias --recalibrate
      another net made of it, with the same weights, held against it
  nearfar export runs/digits_si/weights.safetensors --out digits.onnx
      a file that runs without nearfar and takes images of any size
  nearfar predict digits.onnx photos/
      what it sees in each image of a folder
  nearfar reproduce mnist-scale --fast
      a smoke run of a paper's table; without --fast the table itself
  nearfar count resnet50
      what each layer puts out, reads, learns and sees

'nearfar COMMAND --help' describes a command and its options.
Every command is also a function: nearfar.quickstart(), nearfar.train(),
nearfar.audit(), nearfar.convert(), nearfar.export(), nearfar.predict(),
nearfar.reproduce(), nearfar.count().
Exit status: 0 done, 1 a fault of nearfar, or done with a reservation that the command's help names,
2 something given cannot be used, 130 interrupted, 141 nobody reads the output any more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        arguments: what follows ``nearfar``; default: the process's own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks "×" shows "?"
            stream.reconfigure(errors="replace")
    if not given or given[0] in ("-h", "--help", "help"):
        _write(_help())
        return 0
    if given[0] in ("-V", "--version"):
        from nearfar.version import __version__

        _write(f"nearfar {__version__}\n")
        return 0
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        return _refuse("nearfar", f"no command is named {name!r}; there are {', '.join(COMMANDS)}")
    try:
        return _run(name, rest)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nnearfar {name}: interrupted; what is finished is kept: start the same command "
            f"again to continue\n"
        )
        return 130


def _run(name: str, rest: list[str]) -> int:
    # Heavy imports (torch among them) wait until a command is known to need them.
    command = importlib.import_module(f"nearfar.cli.{name}")
    from nearfar.errors import InputError

    try:
        status: int | None = command.run(rest)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has stopped, as `| head` does. Nothing is left to be said, at exit either.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except InputError as error:
        return _refuse(f"nearfar {name}", str(error))
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return _refuse(f"nearfar {name}", f"{error.strerror or error}{place}")
    return status or 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return _HELP.format(commands="\n".join(lines))


def _refuse(who: str, message: str) -> int:
    line = " ".join(textwrap.dedent(message).split())
    sys.stderr.write(f"{who}: error: {line}\n")
    return 2


def _write(text: str) -> None:
    sys.stdout.write(text)
