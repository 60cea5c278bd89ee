"""Comparison of answers: counts worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from host_tools.compare import Agreement, Element, MismatchError, agreement, all_pairs, first_difference, pairs_table

A = np.array([[1, 2, 3], [-128, 0, 127], [5, 5, 5]], np.int8)


def test_equal_answers_are_exact() -> None:
    found = agreement("simulator", A, "board", A.copy())
    assert found == Agreement("simulator", "board", 3, 9, 0, 0, 0)
    assert found.exact


def test_differences_are_counted_without_overflow() -> None:
    other = A.copy()
    other[1] = [127, 0, -128]  # the classes swap, each distance is 255: more than an int8 holds
    other[2, 0] = 4
    found = agreement("a", A, "b", other)
    assert found == Agreement("a", "b", 3, 9, 3, 255, 2)
    assert not found.exact


def test_the_first_images_are_compared_when_one_side_has_answered_fewer() -> None:
    found = agreement("a", A, "b", A[:2])
    assert (found.images, found.bytes_compared) == (2, 6)


@pytest.mark.parametrize("other", [A[:, :2], A[:0]])
def test_answers_of_another_shape_cannot_be_compared(other: np.ndarray) -> None:
    with pytest.raises(MismatchError, match="cannot be compared"):
        agreement("a", A, "b", other)


def test_a_mismatch_leaves_with_code_ten() -> None:
    assert MismatchError("x").exit_code == 10


def test_every_pair_once_in_order() -> None:
    changed = A.copy()
    changed[0, 0] = 0
    pairs = all_pairs({"x": A, "y": A, "z": changed})
    assert [(p.first, p.second, p.bytes_different) for p in pairs] == [("x", "y", 0), ("x", "z", 1), ("y", "z", 1)]


def test_first_difference_names_the_element() -> None:
    expected = np.zeros((1, 2, 3, 4), np.int8)
    got = expected.copy()
    assert first_difference(expected, got) is None
    got[0, 1, 2, 3], got[0, 1, 0, 2] = 9, -7
    assert first_difference(expected, got) == Element((0, 1, 0, 2), 0, -7)


def test_arrays_of_different_shape_have_no_first_difference() -> None:
    with pytest.raises(ValueError, match="shape"):
        first_difference(np.zeros((2, 2), np.int8), np.zeros((4,), np.int8))


def test_the_table_is_a_matrix_of_bytes() -> None:
    text = pairs_table(all_pairs({"simulator": A, "C": A, "wheel": A[:2]})).split("\n")
    assert text[0].split() == ["bytes", "differing/compared", "C", "wheel"]
    assert text[1].split() == ["simulator", "0/9", "0/6"]
    assert text[2].split() == ["C", "0/6"]
    assert len({len(line) for line in text}) == 1


answers_strategy = arrays(np.int8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@given(answers_strategy, st.data())
def test_counts_equal_those_of_plain_loops(a: np.ndarray, data: st.DataObject) -> None:
    b = data.draw(arrays(np.int8, a.shape))
    found = agreement("a", a, "b", b)
    pairs = [(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    assert found.bytes_different == sum(x != y for x, y in pairs)
    assert found.largest_difference == max(abs(x - y) for x, y in pairs)
    winners = [(max(r, key=lambda v: int(v)), max(s, key=lambda v: int(v))) for r, s in zip(a, b, strict=True)]
    places = [(list(r).index(x), list(s).index(y)) for (x, y), r, s in zip(winners, a, b, strict=True)]
    assert found.classes_different == sum(x != y for x, y in places)
    assert found.exact == (a.tobytes() == b.tobytes())


@given(arrays(np.int8, array_shapes(min_dims=1, max_dims=4, max_side=5)), st.data())
def test_the_first_difference_is_the_first_in_memory(expected: np.ndarray, data: st.DataObject) -> None:
    got = data.draw(arrays(np.int8, expected.shape))
    found = first_difference(expected, got)
    places = [i for i, (x, y) in enumerate(zip(expected.ravel(), got.ravel(), strict=True)) if x != y]
    if not places:
        assert found is None
    else:
        assert found is not None
        assert np.ravel_multi_index(found.index, expected.shape) == places[0]
        assert (found.expected, found.got) == (int(expected.ravel()[places[0]]), int(got.ravel()[places[0]]))


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6, unique=True), st.integers(1, 5))
def test_the_matrix_holds_every_pair_once(names: list[str], images: int) -> None:
    answers = {name: np.full((images, 2), place, np.int8) for place, name in enumerate(names)}
    pairs = all_pairs(answers)
    assert len(pairs) == len(names) * (len(names) - 1) // 2
    assert all(p.bytes_different == 2 * images for p in pairs)  # no two of them agree anywhere
    lines = pairs_table(pairs).split("\n")
    assert [line.split()[0] for line in lines[1:]] == names[:-1]
    cells = [cell for line in lines[1:] for cell in line.split()[1:]]
    assert cells == [f"{2 * images}/{2 * images}"] * len(pairs)
