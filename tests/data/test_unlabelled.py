"""Images without labels."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol
from nearfar.errors import InputError


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "below").mkdir()
    for i in range(20):
        place = tmp_path / "below" if i % 3 else tmp_path
        Image.new("RGB", (9 + i, 12), (10 * i, 0, 0)).save(place / f"{i:02}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_all_images_of_a_folder_are_split_and_have_one_class(photos):
    spec = DataSpec("unlabelled", photos, ScaleProtocol(16, 16), train=12, validation=4)
    images = ScaleDataModule(spec)
    assert images.class_names == ("unlabelled",)
    assert {k: len(v) for k, v in images.indices.items()} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    reds = torch.cat([images.images(s, 1.0)[:, 0, 8, 8] for s in images.indices])
    assert sorted((255 * reds).round().int().tolist()) == [10 * i for i in range(20)]
    assert images.labels("train").unique().tolist() == [0]


def test_what_cannot_be_read_is_left_out_or_too_much(photos):
    (photos / "00.png").write_bytes(b"no image")
    spec = DataSpec("unlabelled", photos, ScaleProtocol(16, 16), max_skipped=0.1)
    assert [path for path, _ in ScaleDataModule(spec).skipped] == [str(photos / "00.png")]
    with pytest.raises(InputError, match="1 of 20 images cannot be read"):
        ScaleDataModule(DataSpec("unlabelled", photos, ScaleProtocol(16, 16)))


def test_a_folder_is_needed(tmp_path):
    with pytest.raises(InputError, match="unlabelled images need as their root an existing folder"):
        ScaleDataModule(DataSpec("unlabelled", tmp_path / "nowhere"))
