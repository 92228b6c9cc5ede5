from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nearfar.cli.parsing import parse_call
from nearfar.errors import InputError


def look(
    model: str,
    images: Sequence[str],
    *,
    out: Path,
    mean: tuple[float, ...] = (),
    deep: bool = False,
    top: int = 5,
) -> None:
    """Looks at images.

    Args:
        model: what looks.
        images: what is looked at.
        out: where to write.
        mean: of the channels.
        deep: look twice.
        top: how many answers.
    """


def weigh(things: tuple[str, ...], unit: str = "g") -> None:
    """Weighs things.

    Args:
        things: what is weighed.
        unit: of mass.
    """


def parsed(*words, function=look):
    return parse_call(function, list(words), "  nearfar look", positional=True)


def test_a_sequence_takes_the_words_that_remain():
    arguments = parsed("m", "a", "-", "b c", "--out", "x")
    assert arguments == {
        "model": "m",
        "images": ["a", "-", "b c"],
        "out": Path("x"),
        "mean": (),
        "deep": False,
        "top": 5,
    }


def test_options_may_come_before_and_between():
    assert parsed("--out", "x", "--deep", "m", "a", "b")["images"] == ["a", "b"]
    arguments = parsed("m", "--out", "x", "--top", "3", "a", "b")
    assert (arguments["model"], arguments["images"], arguments["top"]) == ("m", ["a", "b"], 3)


def test_a_sequence_may_stand_alone():
    assert parsed("1", "2", function=weigh) == {"things": ["1", "2"], "unit": "g"}


@pytest.mark.parametrize("words", [("--mean", "0.5,0.25"), ("--mean=0.5,0.25",)])
def test_a_list_of_numbers_needs_no_brackets(words):
    assert parsed("m", "a", "--out", "x", *words)["mean"] == (0.5, 0.25)


def gather(*, names: tuple[str, ...] = (), files: tuple[Path, ...] = ()) -> None:
    """Gathers things.

    Args:
        names: of rows.
        files: to read.
    """


@pytest.mark.parametrize("words", [("--names", "a, b c*"), ("--names=a,b c*",)])
@pytest.mark.parametrize("more", [("--files", "x/y,z"), ("--files=x/y,z",)])
def test_a_list_of_names_or_paths_needs_no_brackets(words, more):
    assert parsed(*words, *more, function=gather) == {
        "names": ("a", "b c*"),
        "files": (Path("x/y"), Path("z")),
    }


@dataclass(frozen=True)
class Lens:
    """What is looked through.

    Args:
        bounds: of its zoom.
        stops: of its aperture.
        marks: on its rim.
        extra: whatever else.
        size: side, or height and width.
    """

    bounds: tuple[float, float] | None = None
    stops: tuple[int, ...] = ()
    marks: tuple[str, ...] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    size: int | tuple[int, int] = 1


@dataclass(frozen=True)
class Camera:
    """What looks.

    Args:
        lens: in front.
    """

    lens: Lens = Lens()


def shoot(camera: Camera = Camera(), spare: Camera | None = None) -> None:
    """Takes a picture.

    Args:
        camera: that takes it.
        spare: beside it.
    """


@pytest.mark.parametrize("name", ["camera", "spare"])
@pytest.mark.parametrize(
    "words",
    [
        ["--{}.lens.bounds", "0.4,2", "--{}.lens.stops", "2,4", "--{}.lens.marks", "a, b*"],
        ["--{}.lens.bounds=0.4,2", "--{}.lens.stops=2,4", "--{}.lens.marks=a,b*"],
        ["--{}.lens.bounds", "[0.4, 2]", "--{}.lens.stops=[2,4]", "--{}.lens.marks", '["a", "b*"]'],
        [
            f"--{{}}.lens.{x}"
            for x in ("marks=a", "bounds=1,1", "stops=2,4", "bounds=4e-1,2", "marks=b*")
        ],
        ["--{}", '{{"lens": {{"bounds": [0.4, 2], "stops": [2, 4], "marks": "a,b*"}}}}'],
        ["--{}.lens", "{{bounds: [0.4, 2], stops: [2, 4], marks: [a, b*]}}"],
    ],
)
def test_nested_lists_need_no_brackets(name, words):
    camera = parsed(*(word.format(name) for word in words), function=shoot)[name]
    assert camera == Camera(Lens((0.4, 2.0), (2, 4), ("a", "b*")))


@pytest.mark.parametrize(
    ("word", "size"), [("3", 3), ("3,4", (3, 4)), ("[3,4]", (3, 4)), ("-1", -1)]
)
def test_a_number_or_a_list(word, size):
    assert parsed("--camera.lens.size", word, function=shoot)["camera"].lens.size == size


def test_items_of_dictionaries_are_options_too():
    words = ("--camera.lens.extra", "{a: 1, b: x}", "--camera.lens.extra.a", "2.5")
    assert parsed(*words, function=shoot)["camera"].lens.extra == {"a": 2.5, "b": "x"}
    assert parsed(*words, function=shoot)["spare"] is None


def test_a_file_s_lists_and_nulls(tmp_path):
    file = tmp_path / "shoot.yaml"
    file.write_text(
        "camera.lens: {bounds: null, stops: '2,4', extra: {c: [1]}}\nspare: {lens: {marks: [m]}}\n"
    )
    values = parsed(f"--config={file}", "--camera.lens.extra.d", "e", function=shoot)
    assert values["camera"] == Camera(Lens(None, (2, 4), extra={"c": [1], "d": "e"}))
    assert values["spare"] == Camera(Lens(marks=("m",)))
    file.write_text("spare: null\n")
    assert parsed("--config", str(file), function=shoot) == {"camera": Camera(), "spare": None}


def test_the_command_line_wins_over_files_in_either_order(tmp_path):
    file = tmp_path / "weigh.yaml"
    file.write_text("unit: kg\n")
    for words in (["--config", str(file), "--unit", "t"], ["--unit", "t", "--config", str(file)]):
        assert parsed(*words, "1", function=weigh)["unit"] == "t"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m", "--out", "x"), "required: images; see 'nearfar look --help'"),
        (("m", "a"), "required: out; see"),
        ((), "required: model, images, out"),
        (("m", "a", "x"), "required: out"),
        (("m", "a", "--out", "x", "--bottom", "2"), "no option is named --bottom"),
    ],
)
def test_what_is_missing_or_unknown_is_named(words, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parsed(*words)


def test_help_tells_places_from_options(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "model images [images ...]" in text
    assert "images what is looked at." in text
    assert "--out OUT where to write. (required" in text
