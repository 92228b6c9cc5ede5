"""Code that would go on for ever ends in time, whatever it catches; export then fixes the sizes."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import torch
from torch import nn

import nearfar
from nearfar.deploy import capture
from nearfar.deploy.time_limit import TooSlowError, time_limit


def for_ever():
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def test_it_ends_in_time():
    began = time.monotonic()
    with (
        pytest.raises(TooSlowError, match=r"counting took more than 0\.2 s"),
        time_limit(0.2, "counting"),
    ):
        for_ever()
    assert time.monotonic() - began < 2


def test_it_ends_in_another_thread_and_leaves_this_one_alone():
    outcome = []

    def work():
        try:
            with time_limit(0.2, "it"):
                for_ever()
        except TooSlowError as fault:
            outcome.append(str(fault))

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        time.sleep(0.02)
    thread.join(5)
    assert outcome == ["it took more than 0.2 s"]


def test_what_ends_by_itself_is_left_alone():
    for _ in range(200):
        # The time may be over at any step, nothing else may come of it, and nothing afterwards.
        with contextlib.suppress(TooSlowError), time_limit(0.001, "it"):
            sum(range(1000))
    for _ in range(50):
        time.sleep(0.001)
    with pytest.raises(ZeroDivisionError), time_limit(5, "it"):
        1 / 0  # noqa: B018


class Endless(nn.Module):
    """Follows open sizes for ever."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        if isinstance(images.shape[2], torch.SymInt):
            for_ever()
        return self.head(images.mean((2, 3)))


def test_an_export_that_would_not_end_fixes_the_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "_PATIENCE_S", 0.5)
    opened = nearfar.load_classifier(Endless().eval(), size=8)
    result = nearfar.export(opened, tmp_path / "net.pt2")
    assert str(result.openness) == "any number of images of one size"
    assert "following it took more than 0.5 s" in " ".join(result.notes)
