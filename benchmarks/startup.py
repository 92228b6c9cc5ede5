"""How long nearfar takes to start: ``python -m benchmarks.startup [RUNS]``.

Medians of whole processes, in seconds. Run it on an idle machine, twice: the first time files come from
the disk. Where the time goes, ``python -X importtime -c 'import nearfar'`` tells.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from nearfar.cli.main import COMMANDS

_COMMAND = "import sys; from nearfar.cli import main; sys.argv[1:] = {}; sys.exit(main())"


def seconds(code: str) -> float:
    """What one process takes that runs some code."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (ours, from above)
    return time.perf_counter() - start


def main(runs: int = 5) -> None:
    """Prints a line for each way to start."""
    ways = {
        "python": "pass",
        "import torch": "import torch",
        "import torch, nearfar": "import torch, nearfar",
        "import torch; nearfar.SIConv2d": "import torch, nearfar; nearfar.SIConv2d",
        "import timm": "import timm",
        "import nearfar, timm": "import nearfar, timm",
        "nearfar --help": _COMMAND.format(["--help"]),
    }
    ways |= {f"nearfar {name} --help": _COMMAND.format([name, "--help"]) for name in COMMANDS}
    rounds = [{name: seconds(code) for name, code in ways.items()} for _ in range(runs)]
    for name in ways:
        print(f"{median(times[name] for times in rounds):6.2f} s  {name}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
