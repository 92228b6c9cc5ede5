from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import nearfar
from nearfar.classifiers import Classifier, InputSpec
from nearfar.cli import main
from nearfar.data import ScaleProtocol
from nearfar.deploy import Prediction, predict
from nearfar.errors import InputError


def classifier(in_chans=3, canvas=8, content=8, side="longer"):
    """Its logits are the mean of each channel's left and right half, times 20."""
    protocol = ScaleProtocol(canvas=canvas, content=content, side=side)
    names = tuple(f"{c} {half}" for c in "rgb"[:in_chans] for half in ("left", "right"))
    seen = []

    def answer(images):
        seen.append(images)
        halves = images.unflatten(-1, (2, canvas // 2)).mean(dim=(2, 4))
        return 20 * halves.flatten(1)

    return Classifier(InputSpec("halves", in_chans, protocol, len(names), names), answer), seen


def picture(path, colour, size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    picture(folder / "b.png", (0, 255, 0))
    picture(folder / "a.png", (255, 0, 0))
    picture(folder / "deep" / "c.png", (0, 0, 255))
    picture(folder / ".hidden" / "d.png", (0, 0, 255))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_answers_are_the_recogniser_s_softmax(tmp_path):
    opened, _ = classifier()
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, 4:, 1] = 255
    pixels[:, :4, 0] = 51
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (answer,) = predict(opened, tmp_path / "x.png", top=2)
    shares = torch.tensor([4.0, 0, 0, 20, 0, 0], dtype=torch.float64).softmax(0)
    assert (answer.path, answer.label, answer.index) == (str(tmp_path / "x.png"), "g right", 3)
    assert answer.confidence == pytest.approx(float(shares[3]))
    assert [label for label, _ in answer.top] == ["g right", "r left"]
    assert answer.top[1][1] == pytest.approx(float(shares[0]), rel=1e-4)
    assert answer.as_dict()["top"][1] == ["r left", float(f"{answer.top[1][1]:.6g}")]


def test_top_is_at_most_the_classes(photos):
    opened, _ = classifier()
    assert {len(answer.top) for answer in predict(opened, photos, top=99)} == {6}


def test_folders_files_and_order(photos):
    opened, _ = classifier()
    last = photos / "a.png"
    found = [answer.path for answer in predict(opened, [photos, last], batch_size=3)]
    names = ["a.png", "b.png", "deep/c.png", "a.png"]
    assert found == [str(photos / name) for name in names]


def test_no_more_than_a_batch_at_once(photos):
    opened, seen = classifier()
    answers = predict(opened, [photos, photos, photos / "a.png"], batch_size=3)
    assert seen == []
    next(answers)
    assert [len(images) for images in seen] == [3]
    assert len(list(answers)) == 6
    assert [len(images) for images in seen] == [3, 3, 1]


def test_images_are_laid_on_the_canvas_as_the_card_says(tmp_path):
    opened, seen = classifier(canvas=8, content=4)
    path = picture(tmp_path / "x.png", (255, 255, 255), (40, 20))
    list(predict(opened, path))
    stored = torch.full((1, 3, 20, 40), 255, dtype=torch.uint8)
    torch.testing.assert_close(seen[0], opened.input_spec.protocol.render(stored, 1.0))
    assert seen[0][0, 0, 3:5, 2:6].min() > 0.8
    assert seen[0][0, 0, :1].max() == 0


def test_exif_turns_the_image(tmp_path):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255  # the upper half is light
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: the upper half becomes the right one
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    opened, _ = classifier()
    (answer,) = predict(opened, tmp_path / "x.png")
    assert answer.label.endswith("right")


def test_grey_recognisers_see_luminance_and_grey_as_it_is(tmp_path):
    opened, seen = classifier(in_chans=1)
    coloured = picture(tmp_path / "colour.png", (200, 100, 50))
    grey = picture(tmp_path / "grey.png", 77, mode="L")
    list(predict(opened, [coloured, grey]))
    luminance = Image.new("RGB", (1, 1), (200, 100, 50)).convert("L").getpixel((0, 0))
    assert seen[0].shape == (2, 1, 8, 8)
    assert (seen[0] * 255).round().flatten(1).unique(dim=1).flatten().tolist() == [luminance, 77]
    assert luminance == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(photos):
    opened, _ = classifier()
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:40])
    answers = list(predict(opened, [photos, photos / "gone.png"], batch_size=2))
    assert [bool(answer.error) for answer in answers] == [False, True, False, True]
    assert "No such file" in answers[3].error
    assert answers[1].as_dict().keys() == {"path", "error"}
    assert answers[2].label.startswith("b ")


def test_an_answer_that_is_not_finite_is_an_error(photos):
    protocol = ScaleProtocol(canvas=8, content=8)
    input_spec = InputSpec("broken", 3, protocol, 2)
    broken = Classifier(input_spec, lambda images: torch.full((len(images), 2), torch.nan))
    (answer,) = predict(broken, photos / "a.png")
    assert answer == Prediction(
        str(photos / "a.png"), error="the classifier's answer to it is not finite"
    )


def test_progress_counts_images(photos):
    opened, _ = classifier()
    steps = []
    (photos / "a.png").write_bytes(b"x")
    list(predict(opened, photos, batch_size=2, progress=steps.append))
    assert [(s.done, s.total, s.note) for s in steps] == [
        (2, 3, "1 not read"),
        (3, 3, "1 not read"),
    ]


# Standard input


def test_standard_input_holds_one_image(photos):
    opened, _ = classifier()
    content = io.BytesIO((photos / "b.png").read_bytes())
    (answer,) = predict(opened, "-", stdin=content)
    assert (answer.path, answer.label[0], answer.error) == ("-", "g", "")


def test_a_damaged_image_on_standard_input_is_no_list_of_paths(photos):
    opened, _ = classifier()
    content = io.BytesIO((photos / "b.png").read_bytes()[:50])
    (answer,) = predict(opened, ["-"], stdin=content)
    assert answer.path == "-"
    assert answer.error


@pytest.mark.parametrize("name", ["BM.png", "P5 1.png", "ä.png"])
def test_standard_input_holds_paths(photos, monkeypatch, name):
    # Some names begin as an image's bytes do.
    opened, _ = classifier()
    monkeypatch.chdir(photos)
    (photos / "a.png").rename(photos / name)
    lines = f"{name}\r\n\ndeep\n".encode()
    answers = list(predict(opened, ["-", "b.png"], stdin=io.BytesIO(lines)))
    assert [answer.path for answer in answers] == [name, "deep/c.png", "b.png"]
    assert [answer.label[0] for answer in answers] == ["r", "b", "g"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "got nothing"), (b"\n\n", "got nothing"), (b"\x00\x01\n", "got bytes that are neither")],
)
def test_standard_input_of_neither_kind_is_refused(content, said):
    opened, _ = classifier()
    with pytest.raises(InputError, match=f"one encoded image, or paths, one a line; {said}"):
        predict(opened, "-", stdin=io.BytesIO(content))


# What cannot be used


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"images": []}, "at least one image"),
    ],
)
def test_bad_arguments_are_refused_at_once(photos, options, said):
    opened, _ = classifier()
    with pytest.raises(InputError, match=said):
        predict(opened, **{"images": photos, **options})


def test_a_folder_without_images_is_refused(tmp_path):
    opened, _ = classifier()
    with pytest.raises(InputError, match="there is no image in"):
        predict(opened, tmp_path)


def test_other_channels_are_refused(photos):
    input_spec = InputSpec("deep", 4, ScaleProtocol(canvas=8, content=8), 2)
    with pytest.raises(InputError, match=r"deep takes images of 4 channels; image files give 1"):
        predict(Classifier(input_spec, lambda images: images[:, :2, 0, 0]), photos)


# The command


MODEL = "means_for_predict:means"


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs ``nearfar predict`` on a network of the current folder's."""
    (tmp_path / "means_for_predict.py").write_text(
        "def means(images):\n    return 20 * images.mean(dim=(2, 3))\n"
    )
    monkeypatch.chdir(tmp_path)

    def run(*words):
        status = main(["predict", MODEL, *map(str, words), "--size", "8"])
        said = capfd.readouterr()
        return status, said.out, said.err

    yield run
    sys.modules.pop("means_for_predict", None)


def test_lines_of_json_where_the_output_is_no_terminal(command, photos):
    status, out, err = command("photos", "--top", "2")
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["path"] for line in lines] == [
        f"photos/{n}" for n in ("a.png", "b.png", "deep/c.png")
    ]
    assert [(line["label"], line["index"]) for line in lines] == [("0", 0), ("1", 1), ("2", 2)]
    assert [len(line["top"]) for line in lines] == [2, 2, 2]
    assert lines[0]["top"][0] == ["0", lines[0]["confidence"]]


def test_a_table_is_asked_for(command, photos):
    (photos / "b.png").write_bytes(b"damaged [bold]")
    status, out, err = command("photos", "--format", "table")
    assert status == 1
    assert "photos/a.png" in out
    assert "100.0%" in out
    assert "cannot identify image file" in " ".join(out.split())
    assert err.startswith("nearfar predict: photos/b.png: cannot identify")


def test_status_1_where_some_and_2_where_none_could_be_read(command, photos):
    (photos / "b.png").write_bytes(b"damaged")
    status, out, err = command("photos")
    assert status == 1
    assert [set(json.loads(line)) for line in out.splitlines()][1] == {"path", "error"}
    assert err.count("\n") == 1
    status, out, err = command("photos/b.png", "gone.png")
    assert status == 2
    assert len(out.splitlines()) == 2
    assert "nearfar predict: gone.png: [Errno 2] No such file" in err


def test_answers_go_to_a_file(command, photos):
    status, out, err = command("photos", "--out", "answers.jsonl")
    assert (status, out, err) == (0, "", "")
    assert len((photos.parent / "answers.jsonl").read_text().splitlines()) == 3
    status, _, err = command("photos", "--out", "photos")
    assert status == 2
    assert "out must be a file, got the folder photos" in err


def test_nothing_is_said_once_nobody_reads_on(tmp_path):
    picture(tmp_path / "a.png", (255, 0, 0))
    (tmp_path / "paths").write_text("a.png\n" * 3000)
    (tmp_path / "means_here.py").write_text(
        "def means(images):\n    return 2 * images.mean(dim=(2, 3))\n"
    )
    line = (
        f"{sys.executable} -c 'from nearfar.cli import main; raise SystemExit(main())' predict "
        "means_here:means - --size 8 --batch_size 16 < paths | head -n 1; echo ${PIPESTATUS[0]}"
    )
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    first, status = done.stdout.splitlines()
    assert json.loads(first)["path"] == "a.png"
    assert status == "141"
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("means does not say how it wants its images: it is assumed")


def test_it_is_a_function_of_the_package():
    assert nearfar.predict is predict


def test_only_earlier_answers_are_written_over(command, photos):
    picture = (photos / "a.png").read_bytes()
    status, _, err = command("photos", "--out", "photos/a.png")
    assert status == 2
    assert "exists and holds no answers" in err
    assert (photos / "a.png").read_bytes() == picture
    assert command("photos", "--out", "answers.jsonl")[0] == 0
    assert command("photos", "--out", "answers.jsonl")[0] == 0


class Sums(torch.nn.Module):
    """Two numbers an image: the sum of all that is shown, and nothing."""

    def forward(self, x):
        return torch.stack([x.sum((1, 2, 3)), torch.zeros(len(x))], 1)


@pytest.mark.parametrize("crop_pct", [None, 1.0, 0.5])
def test_images_of_the_canvas_s_size_are_enlarged_with_a_word_or_not_at_all(
    crop_pct, tmp_path, caplog
):
    values = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "same.png")
    Image.fromarray(values[:30]).save(tmp_path / "other.png")
    network = Sums()
    network.pretrained_cfg = {
        "input_size": (3, 32, 32), "crop_pct": 0.94, "interpolation": "bicubic",
        "mean": (0.0,) * 3, "std": (1.0,) * 3,
    }  # fmt: skip
    with caplog.at_level("WARNING"):
        opened = nearfar.load_classifier(network, crop_pct=crop_pct)
        assert list(predict(opened, tmp_path / "other.png"))
        assert "as large as the canvas" not in caplog.text
        assert len(list(predict(opened, [tmp_path / "same.png"] * 3, batch_size=1))) == 3
    remarks = [r.getMessage() for r in caplog.records if "as large as the canvas" in r.getMessage()]
    side = {None: 34, 0.5: 64, 1.0: 32}[crop_pct]
    assert len(remarks) == (crop_pct != 1.0)
    assert all(f"are resized to {side}×{side} and cropped" in remark for remark in remarks)
    shown = opened.input_spec.protocol.render([torch.from_numpy(values).permute(2, 0, 1)], 1.0)
    image = Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)
    edge = round((side - 32) / 2)
    expected = np.asarray(image.crop((edge, edge, edge + 32, edge + 32))).transpose(2, 0, 1) / 255
    torch.testing.assert_close(shown[0], torch.from_numpy(expected).float())


def test_a_share_of_nothing_is_refused():
    with pytest.raises(InputError, match="crop_pct is the share of an image's side .* got 0"):
        nearfar.load_classifier(Sums(), crop_pct=0.0)
