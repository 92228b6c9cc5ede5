from __future__ import annotations

import os

import hypothesis
import pytest
import torch

# Several processes share the cores: a thread each is faster than all of them in each.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

# A failing case is shown as found: shrinking it may take minutes, and the cases are small anyway.
hypothesis.settings.register_profile(
    "nearfar",
    deadline=None,
    derandomize=True,
    max_examples=40,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("nearfar")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """Tests leave the user's cache alone."""
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
