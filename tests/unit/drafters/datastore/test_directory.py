import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drafters.datastore.directory import EntityDirectory

KEYS = st.one_of(st.integers(0, 6), st.integers(2**64 - 3, 2**64 - 1))


@given(st.lists(st.lists(KEYS, max_size=5), max_size=4))
def test_it_finds_the_youngest_text_of_each_entity(segments):
    youngest = {key: (s, d) for s, keys in enumerate(segments) for d, key in enumerate(keys)}
    directory = EntityDirectory.of([np.array(keys, np.uint64) for keys in segments])
    read = EntityDirectory.view(np.frombuffer(directory.tobytes(), np.uint8))
    for key in [*range(8), *range(2**64 - 4, 2**64)]:
        assert directory.find(key) == read.find(key) == youngest.get(key)
