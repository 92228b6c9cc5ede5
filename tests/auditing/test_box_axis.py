"""The axis of natural sizes: things whose sizes are known because the images were composed so."""

from __future__ import annotations

import csv
import json
import math
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
import torch
from auditing.made import by_colour, classifier
from PIL import Image

from nearfar.auditing import AuditSpec, ImageSelection, audit
from nearfar.auditing.axes.box_size import bins_of_equal_counts
from nearfar.cli import main
from nearfar.errors import InputError

NAMES = ("a", "b", "c")
SIDE = 192


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """240 images of 192×192 with a coloured rectangle: 16 to 160 pixels large, half as wide as high."""
    folder = tmp_path_factory.mktemp("things")
    draw = np.random.default_rng(0)
    rows = []
    for i in range(240):
        size = 16 * 10 ** (i / 239)
        height, width = round(size * 1.4), round(size / 1.4)
        height = min(height, SIDE)
        top, left = (int(draw.integers(0, SIDE - n + 1)) for n in (height, width))
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[top : top + height, left : left + width, i % 3] = 200
        Image.fromarray(picture).save(folder / f"{i}.png")
        rows.append((f"{i}.png", NAMES[i % 3], left, top, width, height))
    write(folder / "boxes.csv", rows)
    coco = {
        "images": [
            {"id": i, "file_name": row[0], "width": SIDE, "height": SIDE}
            for i, row in enumerate(rows)
        ],
        "categories": [{"id": 7 + k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7 + i % 3, "bbox": list(row[2:])}
            for i, row in enumerate(rows)
        ]
        + [{"id": 999, "image_id": 0, "category_id": 7, "bbox": [0, 0, 1, 1], "iscrowd": 1}],
    }
    (folder / "boxes.json").write_text(json.dumps(coco))
    return folder, rows


def write(file, rows):
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("path", "label", "x", "y", "w", "h"))
        writer.writerows(rows)


def read(file):
    return list(csv.reader(file.read_text().splitlines()))


def above(pixels):
    """Right where the thing has at least this many pixels a side of the input."""

    def answer(images):
        size = (images.amax(1) > 0.4).sum((1, 2)).double().sqrt()
        return (by_colour(images) + (size < pixels)) % 3

    return classifier(answer, canvas=96, content=96, class_names=NAMES)


@pytest.mark.parametrize("file", ["boxes.csv", "boxes.json"])
def test_a_model_that_is_right_above_32_pixels_is_reported_so(composed, file, tmp_path):
    folder, rows = composed
    # In the network's pixels things are half as large: 8 to 80.
    natural = torch.tensor([math.sqrt(w * h) / 2 for *_, w, h in rows], dtype=torch.float64)
    outcome = audit(
        above(32),
        folder / file,
        AuditSpec(axis="box", bins=6),
        require=("top1@60>=1", "top1@12<=0"),
        out=tmp_path,
    )
    curve = outcome.only.curve
    counts = [curve.count(s) for s in curve.scales]
    assert (sum(counts), min(counts), max(counts)) == (240, 39, 41)  # a few are of one size
    assert outcome.passed
    for k, (point, (low, high)) in enumerate(zip(curve.scales, outcome.bounds, strict=True)):
        own = natural[curve.members[k]]
        assert float(own.log().mean().exp()) == pytest.approx(point, rel=5e-3)
        assert low - 1e-9 <= float(own.min())
        assert float(own.max()) <= high + 1e-9
        right = float((own >= 32.2).double().mean())
        assert curve.accuracy(point) == pytest.approx(right, abs=0.1)
        lower, upper = curve.interval(point)
        assert lower <= curve.accuracy(point) <= upper
    accuracies = [curve.accuracy(s) for s in curve.scales]
    assert accuracies[:3] == [0, 0, 0]
    assert accuracies[4:] == [1, 1]
    assert outcome.only.flips is None
    assert "flips" not in curve.figures
    assert any("in the pixels of made's input of 96×96" in n for n in outcome.only.notes)
    written = json.loads((tmp_path / "audit.json").read_text())
    schema = files("nearfar.auditing") / "schema" / "audit.schema.json"
    jsonschema.validate(written, json.loads(schema.read_text()))
    assert written["axis"]["images"] == counts
    assert len(written["axis"]["bounds"]) == 6
    page = (tmp_path / "report.html").read_text()
    assert "counted for one of 6 sizes" in page
    assert "answers other than at" not in page


def test_crops_are_what_the_boxes_hold(composed):
    folder, rows = composed
    inputs = []

    def answer(images):
        inputs.append(images)
        return by_colour(images)

    outcome = audit(
        classifier(answer, canvas=64, content=64, class_names=NAMES),
        folder / "boxes.csv",
        AuditSpec(axis="box", bins=4, crop=True),
    ).only
    assert all(outcome.curve.accuracy(s) == 1 for s in outcome.curve.scales)
    # The smallest is 11 by 22 pixels, the largest 114 by 192, in the file's own.
    low, high = (math.sqrt(rows[i][4] * rows[i][5]) for i in (0, -1))
    assert low < outcome.curve.scales[0] < outcome.curve.scales[-1] < high
    for image, (*_, width, height) in zip(torch.cat(inputs)[:240], rows, strict=True):
        assert (
            image[:, :, 32].amax(0).count_nonzero() == 64
        )  # higher than wide, it fills the canvas
        assert int(image.amax((0, 1)).count_nonzero()) == round(64 * width / height)
    assert any("in the pixels of the file" in n for n in outcome.notes)


def test_a_folder_whose_things_fill_the_images(tmp_path):
    for k, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for i, side in enumerate((10, 20, 30, 40) * 5):
            picture = np.zeros((side, side, 3), np.uint8)
            picture[..., k] = 200
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    outcome = audit(above(0), tmp_path, AuditSpec(axis="box", bins=4)).only
    assert outcome.curve.scales == (10, 20, 30, 40)
    assert [outcome.curve.count(s) for s in outcome.curve.scales] == [15] * 4
    # Equal sizes stay together.
    assert audit(above(0), tmp_path, AuditSpec(axis="box", bins=20)).only.curve.scales == (
        10,
        20,
        30,
        40,
    )
    with pytest.raises(
        InputError, match="crop shows what boxes hold, and these images come without"
    ):
        audit(above(0), tmp_path, AuditSpec(axis="box", crop=True))


BAD = (
    ("0.png", "a", 150, 0, 50, 20),
    ("1.png", "a", 0, 0, 0, 20),
    ("2.png", "zebra", 0, 0, 20, 20),
    ("gone.png", "a", 0, 0, 20, 20),
    ("../boxes.csv", "a", 0, 0, 20, 20),
    ("broken.png", "a", 0, 0, 20, 20),
    ("3.png", "a", "x", 0, 20, 20),
    ("4.png", "b", 2, 2, 20, 20),
)
REASONS = (
    "the box 150, 0, 50, 20 reaches outside of its image of 192×192",
    "the box 0, 0, 0, 20 has no area",
    "the class 'zebra' is unknown; classes are a, b, c",
    "gone.png is missing",
    "../boxes.csv is not below",
    "broken.png cannot be read: cannot identify image file",
    "x, 0, 20, 20 are not four numbers",
    "its image has 2 boxes, and whole images must have one; take crop",
)


def test_bad_boxes_are_listed(composed, tmp_path):
    folder, rows = composed
    (folder / "broken.png").write_text("no picture")
    write(folder / "bad.csv", [*rows, *BAD])
    with pytest.raises(InputError, match="11 of 248 boxes cannot be used: .*all are listed in"):
        audit(above(32), folder / "bad.csv", AuditSpec(axis="box"), out=tmp_path)
    listed = read(tmp_path / "audit-skipped.csv")
    reasons = [reason for _, reason in listed[1:]]
    assert len(listed) == 12  # images 0, 1 and 4 have two boxes each
    for reason in REASONS:
        assert any(reason in line for line in reasons), reason
    assert listed[-1][0] == f"{folder / 'bad.csv'}:249"
    outcome = audit(
        above(32),
        folder / "bad.csv",
        AuditSpec(axis="box"),
        selection=ImageSelection(max_skipped=0.05),
        out=tmp_path,
    ).only
    assert len(outcome.curve.labels) == 237
    assert any(note.startswith("11 boxes cannot be used (the first:") for note in outcome.notes)
    assert len(read(tmp_path / "audit-skipped.csv")) == 12


def test_the_command_ends_with_status_2(composed, capsys, monkeypatch):
    folder, rows = composed
    write(folder / "bad2.csv", [*rows[:20], ("0.png", "a", 150, 0, 50, 20)])
    options = ["--num_classes", "3", "--size", "28", "--axis", "box", "--data"]
    status = main(["audit", "cnn_small", *options, str(folder / "bad2.csv")])
    assert status == 2
    assert "2 of 21 boxes cannot be used" in capsys.readouterr().err


def test_files_that_are_none(composed, tmp_path):
    folder, _ = composed
    model, spec = above(32), AuditSpec(axis="box")
    (tmp_path / "a.csv").write_text("path,label,x,y\n")
    with pytest.raises(
        InputError, match="must name the columns path, label, x, y, w, h, .*; add w, h"
    ):
        audit(model, tmp_path / "a.csv", spec)
    (tmp_path / "b.csv").write_text("path,label,x,y,w,h\n")
    with pytest.raises(InputError, match="names no thing with a box"):
        audit(model, tmp_path / "b.csv", spec)
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(InputError, match="is no COCO file of boxes"):
        audit(model, tmp_path / "c.json", spec)
    with pytest.raises(InputError, match="there is no file .*nothing.csv; name a file of boxes"):
        audit(model, tmp_path / "nothing.csv", spec)
    coco = json.loads((folder / "boxes.json").read_text())
    coco["annotations"][3] = {"id": 3, "image_id": 12345, "category_id": 7, "bbox": [0, 0, 9, 9]}
    coco["annotations"][4] = {"id": 4, "image_id": 4, "bbox": [0, 0, 9, 9]}
    coco["images"][5]["width"] = 100
    (folder / "odd.json").write_text(json.dumps(coco))
    with pytest.raises(
        InputError, match="there is no image 12345.*lacks something.*an image of 192×100"
    ):
        audit(model, folder / "odd.json", spec)
    with pytest.raises(InputError, match="needs after @ a size from 7.* to .* pixels"):
        audit(model, folder / "boxes.csv", spec, require=("top1@300>=1",))
    with pytest.raises(InputError, match="compares answers to the same image at two sizes"):
        audit(model, folder / "boxes.csv", spec, require=("flips@20<1",))
    with pytest.raises(InputError, match="bins is how many groups there are, at least 2"):
        AuditSpec(axis="box", bins=1)


def test_groups_have_equal_counts_and_no_gaps():
    sizes = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double() * 90 + 10
    values, bounds, group = bins_of_equal_counts(sizes, 8)
    assert group.bincount().tolist() == [125] * 8
    assert [high for _, high in bounds[:-1]] == [low for low, _ in bounds[1:]]
    for k, (low, high) in enumerate(bounds):
        own = sizes[group == k]
        assert low <= float(own.min()) <= values[k] <= float(own.max()) <= high
    tied = torch.tensor([5.0] * 6 + [7.0, 8.0])
    values, _, group = bins_of_equal_counts(tied, 4)
    assert group.tolist() == [0] * 6 + [1, 1]
    assert values == (5.0, 7.48)


def test_intervals_of_groups_are_those_of_their_own_images(composed):
    """The bootstrap of a group's share: its width is that of so many images as the group has."""
    folder, _ = composed
    luck = torch.rand(240, generator=torch.Generator().manual_seed(1)) < 0.5
    count = [0]

    def answer(images):
        begin = count[0]
        count[0] += len(images)
        if count[0] > 240:  # timing asks again
            return by_colour(images)
        return (by_colour(images) + (~luck[begin : count[0]]).long()) % 3

    made = classifier(answer, canvas=96, content=96, class_names=NAMES)
    curve = audit(made, folder / "boxes.csv", AuditSpec(axis="box", bins=4)).only.curve
    for k, point in enumerate(curve.scales):
        share = float(luck[curve.members[k]].double().mean())
        assert curve.accuracy(point) == pytest.approx(share)
        low, high = curve.interval(point)
        count = int(curve.members[k].sum())
        expected = 2 * 1.96 * math.sqrt(share * (1 - share) / count)
        assert high - low == pytest.approx(expected, rel=0.2)
        assert curve.class_counts(3)[:, k].sum() == count == curve.count(point)
    low, high = curve.class_interval(3)
    accuracy = curve.class_accuracy(3)
    assert bool(((low <= accuracy) & (accuracy <= high)).all())
    worse, better = sorted(curve.scales, key=curve.accuracy)[:: len(curve.scales) - 1]
    difference, half = curve.difference(better, worse)
    assert difference == pytest.approx(curve.accuracy(better) - curve.accuracy(worse))
    assert half == pytest.approx(1.96 * math.sqrt(2 * 0.25 / 60), rel=0.1)
