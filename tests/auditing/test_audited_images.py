from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from auditing.made import by_colour, classifier, coloured
from PIL import Image

from nearfar.auditing import AuditSpec, ImageSelection, audit
from nearfar.auditing.audited_images import AuditedImages
from nearfar.classifiers import Classifier, InputOptions, InputSpec
from nearfar.data import DataSpec, LabelledImages, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, train


def folder(root, counts, sides=(12, 30), parts=("",)):
    """A labelled folder: images of one colour a class and of several sizes."""
    draw = np.random.default_rng(0)
    for part in parts:
        for k, (name, count) in enumerate(counts.items()):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                side = sides[i % len(sides)]
                pixels = draw.integers(0, 60, (side, side + 4, 3), dtype=np.uint8)
                pixels[..., k] = 220
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


def test_a_folder_s_test_part_or_all_of_it(tmp_path):
    whole = folder(tmp_path / "whole", {"a": 6, "b": 6, "c": 6})
    parted = folder(tmp_path / "parted", {"a": 4, "b": 2, "c": 2}, parts=("train", "test"))
    found = audit(classifier(by_colour), whole, AuditSpec(flips=0, scales=(0.5, 1, 2))).only
    assert len(found.curve.labels) == 18
    assert found.class_names == ("a", "b", "c")
    assert found.curve.accuracy(0.5) == 1
    assert found.notes[0] == (
        "All 18 images of folder, which has no official test part: what a model has been trained on among "
        "them counts as known."
    )
    # Half of them hold 12×16 pixels, the others 30×34.
    assert found.notes[2] == (
        "From 2× on, some images are enlarged beyond the pixels they hold (the first has 12×16), from 2× on "
        "at least half: detail is not added."
    )
    found = audit(
        classifier(by_colour), "folder", AuditSpec(flips=0), selection=ImageSelection(root=parted)
    ).only
    assert found.notes[0] == "All 8 images of the official test part of folder."
    assert found.curve.labels.bincount().tolist() == [4, 2, 2]
    few = audit(
        classifier(by_colour), parted, AuditSpec(flips=0), selection=ImageSelection(count=4)
    ).only
    assert few.notes[0] == "4 of the 8 images of the official test part of folder."
    assert few.curve.labels.bincount().tolist() == [2, 1, 1]
    streamed = audit(
        classifier(by_colour),
        "stream_folder",
        AuditSpec(flips=0),
        selection=ImageSelection(root=parted),
    ).only
    assert torch.equal(streamed.curve.predictions, found.curve.predictions)
    assert streamed.notes[2] == found.notes[2]
    spec = DataSpec("folder", parted, split="seed", train=7, validation=4, test=5)
    assert (
        audit(classifier(by_colour), spec, AuditSpec(flips=0)).only.curve.predictions.shape[1] == 5
    )


def test_images_that_cannot_be_read_are_said_listed_and_at_most_a_share(tmp_path):
    root = folder(tmp_path / "whole", {"a": 6, "b": 6, "c": 6})
    (root / "b" / "cut.png").write_bytes((root / "b" / "0.png").read_bytes()[:40])
    out = tmp_path / "out"
    out.mkdir()
    (out / "skipped.csv").write_text("a training run's\n")
    with pytest.raises(
        InputError,
        match=r"1 of 19 images .* or raise max_skipped=0.01 .* listed in .*out/audit-skipped.csv",
    ):
        audit(classifier(by_colour), root, AuditSpec(flips=0), out=out)
    assert not (out / "audit.json").exists()
    found = audit(
        classifier(by_colour),
        root,
        AuditSpec(flips=0),
        selection=ImageSelection(max_skipped=0.06),
        out=out,
    ).only
    assert found.curve.labels.bincount().tolist() == [6, 6, 6]
    assert found.notes[1].startswith(
        f"Of 19 files, one cannot be read and is left out (the first: {root / 'b' / 'cut.png'}, "
    )
    assert (
        (out / "audit-skipped.csv")
        .read_text()
        .splitlines()[1]
        .startswith(str(root / "b" / "cut.png"))
    )
    (root / "b" / "cut.png").unlink()
    found = audit(classifier(by_colour), root, AuditSpec(flips=0), out=out).only
    assert not any("cannot be read" in note for note in found.notes)
    assert not (out / "audit-skipped.csv").exists()
    assert (out / "skipped.csv").read_text() == "a training run's\n"


def test_a_share_of_unreadable_images_is_for_folders_alone():
    with pytest.raises(
        InputError, match=r"the images themselves were given, got .* max_skipped=0.1"
    ):
        audit(classifier(by_colour), coloured(6), selection=ImageSelection(max_skipped=0.1))
    with pytest.raises(InputError, match=r"max_skipped=0.1; leave it out \(it is for folders"):
        audit(
            classifier(by_colour, 10, in_chans=1),
            "digits",
            selection=ImageSelection(max_skipped=0.1),
        )


def test_photographs_are_laid_on_by_the_side_each_protocol_says(tmp_path):
    root = folder(tmp_path / "whole", {"a": 6, "b": 6, "c": 6}, sides=(20,))
    seen = {}

    def made(side):
        def answer(images):
            seen[side] = images[:, :, 0].amax(1).gt(0.5).float().mean(1)
            return torch.nn.functional.one_hot(by_colour(images), 3).float()

        input_spec = InputSpec(side, 3, ScaleProtocol(16, 16, test_scales=(1.0,), side=side), 3)
        return Classifier(input_spec, answer)

    found = audit([made("longer"), made("shorter")], root, AuditSpec(flips=0))
    assert float(seen["longer"].max()) == 0  # 20×24: bars above and below
    assert float(seen["shorter"].min()) > 0.9
    assert "the shorter side of an image covers 16·s pixels" in found.results["shorter"].notes[1]


@pytest.mark.parametrize("counts", [(60, 300), pytest.param((200, 2000), marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch, counts):
    whole = AuditedImages.read
    alive, most = [0], [0]

    def gone(count):
        alive[0] -= count

    def read(self, at):
        images = list(whole(self, at))
        alive[0] += len(images)
        most[0] = max(most[0], alive[0])
        for image in images:
            weakref.finalize(image, gone, 1)
        return images

    monkeypatch.setattr(AuditedImages, "read", read)
    pixels = Image.new("RGB", (4, 4), (200, 30, 30))
    found = []
    for count in counts:
        for name in "abc":
            place = tmp_path / str(count) / name
            place.mkdir(parents=True)
            for i in range(count // 3 + 1):
                pixels.save(place / f"{i}.bmp")
        most[0] = 0
        audit(
            classifier(by_colour, canvas=12, content=4),
            "stream_folder",
            AuditSpec(scales=(1.0, 2.0), flips=20, batch_size=15),
            selection=ImageSelection(root=tmp_path / str(count)),
        )
        found.append(most[0])
    # The batch asked about, the one read meanwhile, and one that is just being let go.
    assert min(found) >= 15
    assert max(found) <= 3 * 15 < counts[0]


def test_grey_and_colour():
    rgb, grey = coloured(9), coloured(9)
    grey = LabelledImages(grey.images[:, :1], grey.labels, grey.class_names, test_from=0)
    seen = []

    def answer(images):
        seen.append(images)
        return by_colour(images)

    found = audit(classifier(answer), grey, AuditSpec(flips=0)).only
    assert found.notes[-1] == "Grey images are shown with three equal channels."
    assert all(x.shape[1] == 3 and torch.equal(x[:, 0], x[:, 2]) for x in seen)
    one = classifier(lambda x: by_colour(x.expand(-1, 3, -1, -1)), in_chans=1)
    assert audit(one, grey, AuditSpec(flips=0)).only.curve.scales == (0.5, 0.75, 1.0, 1.5, 2.0)
    grey_values = []

    def grey_answer(images):
        grey_values.append(images)
        return images.flatten(1).sum(1).long() % 3

    colours = audit(
        classifier(grey_answer, in_chans=1), rgb, AuditSpec(flips=0, scales=(1.0,))
    ).only
    assert colours.notes[-1] == "Colours are shown as grey: 0.299 R + 0.587 G + 0.114 B."
    middles = torch.cat(grey_values)[:, 0, 24, 24] * 255
    by_pillow = [
        Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L").getpixel((8, 8))
        for image in rgb.images
    ]
    assert middles.round().int().tolist()[: len(rgb.images)] == by_pillow


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (
            classifier(by_colour, 4),
            {"data": coloured(9)},
            r"made answers with 4 classes, given images has 3 \(a, b, c\); audit it on data of its own",
        ),
        (
            classifier(by_colour, class_names=("a", "c", "b")),
            {"data": coloured(9)},
            "class 1 is 'c' there and 'b' here; audit it on data of its own classes",
        ),
        (classifier(by_colour), {}, "made does not say what it was trained on; give data"),
        (
            classifier(by_colour),
            {"data": "nowhere"},
            "no data set is named 'nowhere', and there is no",
        ),
        (
            classifier(by_colour),
            {"data": "src", "selection": ImageSelection(root="src")},
            "src is a folder itself, got root=src",
        ),
        (
            classifier(by_colour),
            {"data": coloured(9), "selection": ImageSelection(root="x")},
            "the images themselves were given",
        ),
        (
            classifier(by_colour),
            {"data": coloured(9), "selection": ImageSelection(count=10)},
            "has 9 images to audit on, got ima",
        ),
        ([], {"data": coloured(9)}, "an audit needs at least one model, got none"),
        (
            classifier(by_colour),
            {"data": "mnist", "inputs": InputOptions(size=9)},
            "says itself how images are normalised",
        ),
    ],
)
def test_what_does_not_fit(model, arguments, message):
    with pytest.raises(InputError, match=message):
        audit(model, **arguments)


def test_names():
    one, other = classifier(by_colour), classifier(by_colour)
    found = audit([one, other, classifier(by_colour, name="x")], coloured(9), AuditSpec(flips=0))
    assert list(found.results) == ["made-1", "made-2", "x"]
    assert found.results["made-2"].notes[0] == (
        "made-2 is number 2 of those: 2 models are called made."
    )
    named = audit(
        {"mine": one, "theirs": other}, coloured(9), AuditSpec(flips=0), baseline="theirs"
    )
    assert (list(named.results), named.baseline) == (["theirs", "mine"], "theirs")
    with pytest.raises(ValueError, match="too many values"):
        named.only.model  # noqa: B018


def test_one_is_added_to_the_scales():
    found = audit(classifier(by_colour), coloured(9), AuditSpec(scales=(2.0, 0.5), flips=0)).only
    assert found.curve.scales == (0.5, 1.0, 2.0)
    assert found.notes[-1] == "1× was added to the scales: it is what the others are compared with."


def test_settings_go_to_those_who_do_not_say():
    def answer(images):
        return torch.nn.functional.one_hot(by_colour(images), 3).float()

    found = audit(
        [classifier(by_colour), answer],
        coloured(9),
        AuditSpec(flips=0),
        inputs=InputOptions(size=20),
    )
    assert [r.protocol.canvas for r in found.results.values()] == [48, 20]
    assert list(found.results) == ["made", "answer"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [
        train(
            ModelSpec("cnn_small"),
            DataSpec(train=200, validation=60, test=count, split_seed=seed),
            FitSpec(epochs=1),
            out=out / str(seed),
        )
        for seed, count in ((0, 200), (1, 300))
    ]


def test_checkpoints_meet_on_images_that_all_put_aside(two):
    from nearfar.data import ScaleDataModule

    found = audit([trained.path for trained in two], spec=AuditSpec(scales=(1.0,)))
    learnt = [ScaleDataModule(t.recipe.data).indices for t in two]
    tests = [
        set(range(1797)).difference(i["train"].tolist(), i["validation"].tolist()) for i in learnt
    ]
    labels = ScaleDataModule(two[0].recipe.data)._labels
    both = sorted(tests[0] & tests[1])
    assert torch.equal(found.results["cnn_small-1"].curve.labels, labels[both])
    assert found.results["cnn_small-1"].notes[:2] == (
        f"cnn_small-1 is {two[0].path}: 2 models are called cnn_small.",
        f"{len(both):,} test images of digits that the training of cnn_small-1, cnn_small-2 put aside.",
    )
    few = audit(
        [trained.path for trained in two],
        spec=AuditSpec(scales=(1.0,)),
        selection=ImageSelection(count=50),
    )
    assert len(few.results["cnn_small-2"].curve.labels) == 50 < len(both)


def test_a_stranger_is_shown_what_the_checkpoint_put_aside(two):
    answer = classifier(lambda x: x.mean((1, 2, 3)).long(), 10, canvas=28, content=12, in_chans=1)
    found = audit([two[0].path, answer], spec=AuditSpec(scales=(1.0,)))
    assert found.results["made"].curve.predictions.shape == (1, 200)
    assert found.results["made"].notes[0].endswith("that the training of cnn_small put aside.")


def test_classes_without_a_test_image_are_named(tmp_path):
    parted = folder(tmp_path, {"a": 6, "b": 6}, parts=("train", "test"))
    (tmp_path / "train" / "c").mkdir()
    Image.new("RGB", (12, 12)).save(tmp_path / "train" / "c" / "only.png")
    result = audit(classifier(by_colour), parted, AuditSpec(flips=0, scales=(1.0,))).only
    assert (
        "Of 1 of 3 classes there is no test image, so nothing is said of them: c." in result.notes
    )
