from __future__ import annotations

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("nearfar", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("nearfar")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
