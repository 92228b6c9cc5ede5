"""``nearfar``: finds the command, and turns bad input into one line and exit status 2."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from nearfar.cli.interruption import INTERRUPTED, InterruptWatch
from nearfar.cli.light_imports import light_imports
from nearfar.cli.terminal_text import VisibleFormatter, visible
from nearfar.errors import InputError
from nearfar.version import __version__

__all__ = ["COMMANDS", "main"]

#: Each command lives in the module of its name beside this file, which is imported only when it is run.
COMMANDS = {
    "quickstart": "Train a plain net and its scale-aware twins on digits; see who holds where.",
    "train": "Train one net under one recipe.",
    "audit": "Measure how a trained net's accuracy changes with the size of things.",
    "convert": "Make a trained network scale-aware, and hold it against what it was.",
    "wrap": "Put a trained network over several sizes, without training, within a budget.",
    "export": "Write a net as ONNX or a torch.export program, checked against the original.",
    "benchmark": "Run a net in PyTorch, compiled and exported; compare speed, memory and answers.",
    "predict": "Ask a net, or an exported file, about images.",
    "reproduce": "Run one of the papers' comparisons and set our figures beside theirs.",
    "count": "Count a network layer by layer: units, connections, weights, receptive fields.",
}
_HELP = """\
nearfar makes image classifiers that know a thing whether it is near or far,
and measures how well any classifier does.

usage: nearfar COMMAND [OPTIONS]

commands:
{commands}

start here:
  nearfar quickstart
      five nets learn digits at one size and are tested at nine (about two
      minutes); then open runs/quickstart/report.html
  nearfar train --config recipes/digits_si.yaml
  nearfar audit runs/digits_si/weights.safetensors
  nearfar convert runs/digits_si/weights.safetensors antialias --recalibrate
  nearfar wrap runs/digits_plain/weights.safetensors --budget 1.5
  nearfar export runs/digits_si/weights.safetensors --out digits.onnx
  nearfar benchmark digits.onnx --data digits
  nearfar predict digits.onnx photos/
  nearfar reproduce mnist-scale --fast
  nearfar count resnet50

'nearfar COMMAND --help' describes a command; each is also a function, such as nearfar.audit().
Exit status: 0 done, 1 a fault of nearfar, or done with a reservation that the command's help names,
2 something given cannot be used, 130 interrupted, 141 nobody reads the output any more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        arguments: what follows ``nearfar``; default: the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks "×" shows "?"
            stream.reconfigure(errors="replace")
    if logging.lastResort is not None:  # prints warnings where nobody has set up logging
        logging.lastResort.setFormatter(VisibleFormatter())
    name = words[0] if words else "help"
    if name in ("-h", "--help", "help"):
        lines = [f"  {command:10}  {summary}" for command, summary in COMMANDS.items()]
        sys.stdout.write(_HELP.format(commands="\n".join(lines)))
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"nearfar {__version__}\n")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return _refuse(
            "nearfar", f"no command is named {name!r}; {hint}there are {', '.join(COMMANDS)}"
        )
    watch = InterruptWatch(
        f"\nnearfar {name}: interrupted; what is finished is kept: start the same command again to continue\n"
    )
    if arguments is not None:
        return _run(name, words[1:], watch)
    watch.start()
    if not {"-h", "--help"}.isdisjoint(words):
        with light_imports():
            return _run(name, ["--help"], watch)
    try:
        status = _run(name, words[1:], watch)
    except Exception:  # an interrupted import may raise anything
        if not watch.interrupted.wait(0.05):
            raise
        watch.announce()
        status = INTERRUPTED
    if status == INTERRUPTED:
        sys.stderr.flush()
        watch.end()
    return status


def _run(name: str, words: list[str], watch: InterruptWatch) -> int:
    try:
        # Heavy imports (torch among them) wait until a command is known to need them.
        status: int | None = importlib.import_module(f"nearfar.cli.{name}").run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has stopped, as `| head` does; nor can anything be written at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        watch.announce()
        return INTERRUPTED
    except InputError as error:
        return _refuse(f"nearfar {name}", str(error))
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        return _refuse(f"nearfar {name}", f"{error.strerror or error}{file}")
    return status or 0


def _refuse(command: str, message: str) -> int:
    sys.stderr.write(f"{command}: error: {visible(' '.join(message.split()))}\n")
    return 2
