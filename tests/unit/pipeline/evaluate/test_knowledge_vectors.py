"""Texts as vectors: one projection for all sets, missing entities empty, the control deranged."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.evaluate.vectors import deranged, knowledge_vectors

IDS = {"user": pa.array(["1", "2"]), "item": pa.array(["1", "2", "3", "4"])}


def encode(texts):
    """A vector that depends on the text alone."""
    return np.stack([np.random.default_rng(list(text.encode())).normal(size=12) for text in texts]).astype(
        np.float32
    )


def rows(**texts):
    """`user_1="text"` and so on."""
    columns = [
        {"kind": name.split("_")[0], "entity_id": name.split("_")[1], "text": text}
        for name, text in texts.items()
    ]
    return pa.Table.from_pylist(columns)


GREEDY = rows(user_1="a", user_2="b", item_1="c", item_2="d", item_3="e")


def test_equal_texts_have_equal_vectors_in_all_sets():
    other = rows(user_1="a", user_2="x", item_1="c", item_2="d", item_3="y")
    vectors = knowledge_vectors({"greedy": GREEDY, "other": other}, IDS, "greedy", 4, encode)
    assert np.array_equal(vectors["greedy"]["item"][1:3], vectors["other"]["item"][1:3])
    assert not np.allclose(vectors["greedy"]["item"][3], vectors["other"]["item"][3])
    assert np.array_equal(vectors["greedy"]["user"][1], vectors["other"]["user"][1])


def test_entities_without_text_are_empty_and_marked():
    table = knowledge_vectors({"greedy": GREEDY}, IDS, "greedy", 4, encode)["greedy"]["item"]
    assert table.shape == (5, 5)
    assert table[:, -1].tolist() == [0, 1, 1, 1, 0]
    assert not table[0].any()
    assert not table[4].any()


def test_a_set_without_texts_of_a_kind_is_refused():
    with pytest.raises(DataError, match="no text of any user"):
        knowledge_vectors({"greedy": rows(item_1="c")}, IDS, "greedy", 4, encode)


@given(st.integers(2, 40), st.integers(0, 1000), st.data())
def test_nobody_keeps_the_own_knowledge(size, seed, data):
    present = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda x: sum(x) > 1))
    table = np.zeros((size + 1, 3), np.float32)
    table[1:, 0] = np.arange(1, size + 1) * np.array(present)
    table[1:, 2] = present
    shuffled = deranged(table, seed)
    kept = table[:, 2] > 0
    assert np.array_equal(shuffled[:, 2], table[:, 2])
    assert sorted(shuffled[kept, 0]) == sorted(table[kept, 0])
    assert not (shuffled[kept, 0] == table[kept, 0]).any()
