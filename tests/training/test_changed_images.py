"""Images that changed since a training began, or since a network was trained, are noticed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nearfar.auditing import AuditSpec, ImageSelection, audit
from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, train
from nearfar.training.checkpoint import save_checkpoint


class StopError(Exception):
    """Ends a run from within."""


def pictures(root, count):
    """Three classes, one of them with one image more for each above 60."""
    noise = np.random.default_rng(0)
    for number in range(count):
        path = root / "abc"[min(number // 20, 2)] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (12, 12), dtype=np.uint8)).save(path)


def stop_in_second_epoch(step):
    if step.done == 2:
        raise StopError


def test_data_that_changed_are_noticed(tmp_path):
    root, out = tmp_path / "images", tmp_path / "run"
    pictures(root, 60)
    data = DataSpec("folder", root, ScaleProtocol(16, 12), train=30, validation=15)

    def go_on(**options):
        fit = FitSpec(epochs=3, batch_size=8)
        return train(ModelSpec(), data, fit, seed=3, out=out, **options)

    with pytest.raises(StopError):
        go_on(progress=stop_in_second_epoch)
    pictures(root, 61)
    with pytest.raises(
        InputError,
        match="images of folder are not those that the run in .* began with: 60 images then, 61 now; "
        "put them back",
    ):
        go_on()
    (root / "c" / "060.png").unlink()
    (root / "c" / "059.png").rename(root / "a" / "059.png")
    with pytest.raises(InputError, match="60 images then and now, with other labels"):
        go_on()
    (root / "a" / "059.png").rename(root / "c" / "059.png")
    trained = go_on()
    assert trained.record["data"] == ScaleDataModule(data).fingerprint()
    assert audit(trained.path, spec=AuditSpec(scales=(1.0,))).only.curve.predictions.shape == (
        1,
        15,
    )
    pictures(root, 61)
    with pytest.raises(
        InputError, match=r"trained with: 60 images then, 61 now, .*; audit it on the data as they"
    ):
        audit(trained.path, selection=ImageSelection(root=root))
    # In another place it is another data set; a record without a fingerprint is not checked.
    root.rename(tmp_path / "others")
    elsewhere = audit(
        trained.path,
        spec=AuditSpec(scales=(1.0,)),
        selection=ImageSelection(root=tmp_path / "others"),
    ).only
    assert elsewhere.curve.predictions.shape[1] == 61
    assert "All 61 images of folder, which has no official test part" in " ".join(elsewhere.notes)
    (tmp_path / "others").rename(root)
    record = {k: v for k, v in trained.record.items() if k != "data"}
    save_checkpoint(trained.path, trained.model, record)
    assert audit(trained.path, spec=AuditSpec(scales=(1.0,))).only.curve.predictions.shape[1] == 16
