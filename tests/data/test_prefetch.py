from __future__ import annotations

import threading
import time

import pytest
import torch
from torch.utils.data import Dataset

from nearfar.data import DataSpec, ScaleDataModule
from nearfar.data.prefetch import PrefetchLoader


class Numbers(Dataset):
    def __init__(self, fault=None):
        self.fault = fault
        self.read = []

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == self.fault:
            raise ArithmeticError("five is out")
        self.read.append(i)
        self.threads = torch.get_num_threads()
        return torch.tensor(i)


def threads():
    return [t for t in threading.enumerate() if t.name == "nearfar batches"]


def test_batches_come_in_order_and_are_made_ahead():
    numbers = Numbers()
    batches = iter(PrefetchLoader(numbers, batch_size=None))
    assert int(next(batches)) == 0
    limit = time.monotonic() + 10
    while len(numbers.read) < 4 and time.monotonic() < limit:
        time.sleep(0.01)
    # One is in use, two are ready, and one waits for room.
    assert numbers.read == [0, 1, 2, 3]
    assert [int(n) for n in batches] == list(range(1, 8))
    assert not threads()


def test_nothing_goes_on_when_the_rest_is_not_wanted():
    batches = iter(PrefetchLoader(Numbers(), batch_size=None))
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert not threads()


def test_a_fault_arrives_where_its_batch_would():
    batches = iter(PrefetchLoader(Numbers(fault=5), batch_size=None))
    assert [int(next(batches)) for _ in range(5)] == list(range(5))
    with pytest.raises(ArithmeticError, match="five is out"):
        next(batches)
    assert not threads()


def test_batches_take_one_core_and_leave_the_others_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        numbers = Numbers()
        assert len(list(PrefetchLoader(numbers, batch_size=None))) == 8
        assert numbers.threads == 1
        assert torch.get_num_threads() == 3
        thread_counts = []
        later = threading.Thread(target=lambda: thread_counts.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert thread_counts == [3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_batches_with_worker_processes(workers):
    options = {
        "train": 60, "validation": 20, "test": 20, "augment": "crop_flip", "random_scale": (0.5, 2),
        "rotate": 10,
    }  # fmt: skip
    plain = ScaleDataModule(DataSpec(**options), 16, seed=4).train_dataloader()
    others = ScaleDataModule(DataSpec(**options, workers=workers), 16, seed=4).train_dataloader()
    for epoch in (0, 1):
        for loader in (plain, others):
            loader.sampler.set_epoch(epoch)
        for (images, labels), (expected, there) in zip(others, plain, strict=True):
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
            assert torch.equal(labels, there)
