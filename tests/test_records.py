"""The one reader of records: what it takes, and one clear line for all else."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.errors import InputError
from nearfar.records import as_csv, as_dataclass, as_typed, check_extent, described_type, parse_json

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, int] = (1, 2)
    word: Literal["mean", "max"] = "mean"


@dataclass(frozen=True)
class Outer:
    rate: float
    count: int = 3
    inner: Inner = field(default_factory=Inner)
    scales: tuple[float, ...] = ()
    root: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.rate < 0:
            raise InputError(f"rate must be at least 0, got {self.rate}")


@given(PLAIN.filter(lambda data: "inf" not in repr(data)))
def test_what_json_writes_is_read_again(data):
    assert parse_json(json.dumps(data), "x", "mend it") == data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 200_000, "nested too deep"),
        ("[" * 70 + "]" * 70, "nested deeper than 64 levels"),
        ('{"a": NaN}', "the number NaN is not finite"),
        ("[1e999]", "the number 1e999 is not finite"),
        ("9" * 5000, r"the number 99999999… of 5000 digits is too large"),
        (str(2**64 + 1), "of 20 digits is too large"),
        (b"\xff\xfe", "is not JSON that can be read"),
        ("", "Expecting value"),
        (json.dumps([0] * 1_000_001), "more than 1,000,000 values"),
    ],
)
def test_texts_that_are_refused(text, reason):
    with pytest.raises(InputError, match=rf"^the file .*{reason}.*; take a whole one$"):
        parse_json(text, "the file", "take a whole one")


def test_numbers_need_not_be_finite_where_that_is_asked_for():
    assert parse_json("[Infinity, 1e999]", "x", "y", finite=False) == [float("inf")] * 2


def test_what_is_referred_to_again_and_again_counts_each_time():
    data = ["x"] * 9
    for _ in range(12):
        data = [data] * 9
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        check_extent(data)
    cycle = []
    cycle.append(cycle)
    with pytest.raises(ValueError, match="deeper than 64 levels"):
        check_extent(cycle)


def test_a_dataclass_of_a_record():
    record = {
        "rate": 1,
        "count": 4.0,
        "inner": {"sizes": [3, 4], "word": "max"},
        "scales": [1, 0.5],
        "root": "a/b",
        "options": {"x": [1]},
    }
    outer = as_dataclass(Outer, record, "settings")
    assert outer == Outer(1.0, 4, Inner((3, 4), "max"), (1.0, 0.5), Path("a/b"), {"x": [1]})
    assert [type(value) for value in (outer.rate, outer.count, outer.root)] == [
        float,
        int,
        type(Path()),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": "1"}, "settings.rate must be a number, got '1'"),
        ({"rate": True}, "settings.rate must be a number, got True"),
        ({"rate": float("nan")}, "settings.rate must be a number, got nan"),
        ({"rate": -1}, "settings: rate must be at least 0, got -1.0"),
        ({"count": 1.5}, "settings.count must be a whole number, got 1.5"),
        ({"inner": [1]}, r"settings.inner must be a mapping of names to values, got \[1\]"),
        ({"inner": {"sizes": [1]}}, r"settings.inner.sizes must be 2 whole numbers, got \[1\]"),
        (
            {"inner": {"sizes": [1, "b"]}},
            r"settings.inner.sizes\[1\] must be a whole number, got 'b'",
        ),
        ({"inner": {"word": "min"}}, "settings.inner.word must be one of mean, max, got 'min'"),
        ({"inner": {"other": 1}}, "settings.inner has unknown 'other'"),
        ({"scales": 1}, "settings.scales must be a list of numbers, got 1"),
        ({"root": "a\0b"}, "settings.root must be a path or null, got"),
        ({"options": {1: 2}}, "a name in settings.options must be a text, got 1"),
        ({"x" * 500: 1}, "settings has unknown 'x{76}…"),
    ],
)
def test_records_of_another_form_are_refused(change, message):
    with pytest.raises(InputError, match=f"^{message}"):
        as_dataclass(Outer, {"rate": 1, **change}, "settings")


def test_a_record_that_lacks_something_says_what():
    with pytest.raises(InputError, match="^settings lacks rate$"):
        as_dataclass(Outer, {}, "settings")
    with pytest.raises(
        InputError, match=r"^settings must be a mapping of names to values, got \[\]$"
    ):
        as_dataclass(Outer, [], "settings")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "a whole number or null"),
        (tuple[float, float], "2 numbers"),
        (Sequence[str], "a list of texts"),
        (Mapping[str, int], "a mapping of names to values"),
        (Literal["a", "b"], "one of a, b"),
    ],
)
def test_types_in_words(hint, words):
    assert described_type(hint) == words
    with pytest.raises(InputError, match=re.escape(f"x must be {words}, got")):
        as_typed(hint, object(), "x")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1"])
def test_texts_are_no_formulas_in_csv(text):
    lines = as_csv(["name", "value"], [{"name": text, "value": -1.5}, {"name": "a=b"}])
    rows = list(csv.reader(io.StringIO(lines, newline="")))
    assert rows[1] == ["'" + text.replace("\r", "\\r"), "-1.5"]
    assert rows[2] == ["a=b", ""]
