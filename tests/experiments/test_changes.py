import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.experiments.writing import changes, with_changes

LEAF = st.none() | st.integers() | st.lists(st.integers(), max_size=2)


def test_changes_are_told_by_their_place():
    base = {"data": {"split_seed": 0, "train": 5}, "seed": 0, "options": {"a": 1}}
    whole = {"data": {"split_seed": 3, "train": 5}, "seed": 3, "options": {"b": 1}}
    told = changes(whole, base)
    assert told == {"data.split_seed": 3, "seed": 3, "options": {"b": 1}}
    assert with_changes(base, told) == whole
    assert base["seed"] == 0
    assert base["data"]["split_seed"] == 0


@given(
    st.fixed_dictionaries({"a": LEAF, "b": st.fixed_dictionaries({"c": LEAF, "d": LEAF})}),
    st.fixed_dictionaries({"a": LEAF, "b": st.fixed_dictionaries({"c": LEAF, "d": LEAF})}),
)
def test_one_is_the_inverse_of_the_other(whole, base):
    told = changes(whole, base)
    assert with_changes(base, told) == whole
    assert (not told) == (whole == base)


def test_a_change_at_no_place_is_refused():
    with pytest.raises(KeyError, match="data.lost"):
        with_changes({"data": {"train": 5}}, {"data.lost": 1})
