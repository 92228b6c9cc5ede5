from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

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
    found = parsed("m", "a", "-", "b c", "--out", "x")
    assert found == {
        "model": "m",
        "images": ["a", "-", "b c"],
        "out": Path("x"),
        "mean": (),
        "deep": False,
        "top": 5,
    }


def test_options_may_come_before_and_between():
    assert parsed("--out", "x", "--deep", "m", "a", "b")["images"] == ["a", "b"]
    found = parsed("m", "--out", "x", "--top", "3", "a", "b")
    assert (found["model"], found["images"], found["top"]) == ("m", ["a", "b"], 3)


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("m", "--out", "x"), "required: images; see 'nearfar look --help'"),
        (("m", "a"), "required: out; see"),
        ((), "required: out, model, images"),
        (("m", "a", "x"), "required: out"),
        (("m", "a", "--out", "x", "--bottom", "2"), "unrecognized arguments: --bottom 2"),
    ],
)
def test_what_is_missing_or_unknown_is_named(words, said):
    with pytest.raises(InputError, match=re.escape(said)):
        parsed(*words)


def test_help_tells_places_from_options(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "model images [images ...]" in told
    assert "images what is looked at." in told
    assert "--out OUT where to write. (required" in told
