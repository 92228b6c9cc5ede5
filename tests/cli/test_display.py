from __future__ import annotations

import io

from rich.console import Console

from nearfar.cli.display import shown_progress
from nearfar.progress import Step


def displayed(is_terminal):
    file = io.StringIO()
    with shown_progress(Console(file=file, force_terminal=is_terminal, width=100)) as progress:
        for done in range(21):
            progress(Step("training", done, 20, f"loss {done}"))
    return file.getvalue()


def test_a_log_gets_a_line_every_tenth():
    lines = displayed(is_terminal=False).splitlines()
    assert len(lines) == 11
    assert (lines[0], lines[-1]) == ("  0%  training  loss 0", "100%  training  loss 20")


def test_a_terminal_gets_a_bar_with_the_time_left():
    last = displayed(is_terminal=True).rsplit("\r", 1)[-1]
    for part in ("training", "100%", "0:00:00", "loss 20"):
        assert part in last
