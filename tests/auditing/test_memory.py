from __future__ import annotations

import torch
from torch import nn

from nearfar.auditing.cost import peak_memory


def test_what_is_let_go_counts_no_longer():
    def answer():
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b + 1
        seen = c.view(10, 100)  # no storage of its own
        del b, c
        return seen * 2

    assert peak_memory(nn.Identity(), answer) == 2 * 1000 * 4


def test_a_chain_holds_two_maps_and_no_weights():
    chain = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(5)]).eval()
    batch = torch.rand(2, 3, 10, 10)

    def answer():
        with torch.inference_mode():
            return chain(batch)

    assert peak_memory(chain, answer) == 2 * (2 * 3 * 10 * 10 * 4)
    assert peak_memory(chain, answer) == 2 * (2 * 3 * 10 * 10 * 4)  # as often as it is asked
