"""``python -m nearfar.training.worker``: a process beside the one that calls :func:`nearfar.training.train`.

It reads its task from the first line of standard input, and ends when that is closed: so it never
outlives the process that started it, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import torch

from nearfar.errors import InputError
from nearfar.training.fit import follow
from nearfar.training.processes import join
from nearfar.training.specs import Recipe


def main() -> None:
    """Trains along."""
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    sys.stdout = sys.stderr  # what is said to the first process goes another way
    torch.set_num_threads(task["threads"])
    try:
        follow(Recipe.from_dict(task["recipe"]), Path(task["out"]), join(*task["place"]))
    except InputError as cause:
        print(cause, file=sys.__stdout__, flush=True)
        sys.exit(2)


def _end_with_the_first() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would be in the way of an orderly end
    os._exit(1)


if __name__ == "__main__":
    main()
