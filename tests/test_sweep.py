"""One small network of every family through every command; ``benchmarks/sweep.py`` is the sweep itself."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def outcome(name, root):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sweep", "--one", name],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def committed(pytestconfig):
    return json.loads((pytestconfig.rootpath / "results" / "sweep.json").read_text())["networks"]


def test_nothing_fails_and_nothing_differs(committed):
    faults = [
        f"{name}: {step}: {text}"
        for name, steps in committed.items()
        for step, text in steps.items()
        if text.startswith("FAULT")
    ]
    assert faults == []
    assert len(committed) > 170


@pytest.mark.parametrize("name", ["test_nfnet", "torchvision/squeezenet1_1"])
def test_two_networks_go_the_whole_way(name, committed, pytestconfig):
    kinds = {step: text.partition(":")[0] for step, text in committed[name].items()}
    now = outcome(name, pytestconfig.rootpath)
    # Methods that have come since then are not in it.
    assert {step: text.partition(":")[0] for step, text in now.items() if step in kinds} == kinds
    assert not any(text.startswith("FAULT") for text in now.values())


@pytest.mark.slow
def test_every_network_goes_the_whole_way(committed, pytestconfig):
    faults = []
    for name, before in committed.items():
        now = outcome(name, pytestconfig.rootpath)
        faults += [
            f"{name}: {step}: {now[step]}, was {before[step]}"
            for step in before
            if now[step].partition(":")[0] != before[step].partition(":")[0]
        ]
    assert faults == []
