from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearfar.data import load_source
from nearfar.data.sources import files
from nearfar.data.splits import stratified_order


def pictures(root):
    for k, kind in enumerate("ab"):
        (root / kind).mkdir(parents=True)
        for i, size in enumerate(((40, 30), (9, 21), (600, 500))):
            Image.new("RGB", size, (80 * k, 20 * i, 9)).save(root / kind / f"{i}.jpg")
    (root / "a" / "damaged.jpg").write_bytes(b"no image")
    return root


def test_a_folder_says_how_large_its_images_were(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WORTH_KEEPING", 0)  # through the cache
    root = pictures(tmp_path / "images")
    for _ in range(2):
        found = load_source("folder", root, size=16, max_skipped=0.5)
        assert found.images.shape == (6, 3, 16, 16)
        # Large JPEGs are decoded at a fraction of their size: that is not what they hold.
        assert found.sides.tolist() == [[30, 40], [9, 21], [500, 600]] * 2
    assert load_source("stream_folder", root, size=16, max_skipped=0.5).sides is None
    assert load_source("digits").sides is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 9))
def test_every_beginning_is_stratified(labels, seed):
    labels = torch.tensor(labels)
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert torch.equal(order, stratified_order(labels, seed))
    for count in range(len(labels) + 1):
        found = labels[order[:count]].bincount(minlength=5)
        due = labels.bincount(minlength=5) * count / len(labels)
        assert float((found - due).abs().max()) < 2.5


def test_the_seed_chooses():
    labels = torch.arange(100) % 3
    first, other = stratified_order(labels, 0), stratified_order(labels, 1)
    assert not torch.equal(first, other)
    assert labels[first[:30]].bincount().tolist() == [10, 10, 10]


def test_a_rare_class_is_there_in_proportion():
    labels = (torch.arange(100) >= 90).long()
    order = stratified_order(labels)
    for count in (10, 20, 50):
        assert labels[order[:count]].bincount(minlength=2).tolist() == [
            count * 9 // 10,
            count // 10,
        ]
