import numpy as np
import pytest

from drafters.calibration import Calibration
from drafters.datastore import Segment
from drafters.retrieval.draft import (
    DOMAIN,
    GROUP,
    MAX_CANDIDATES,
    NUM_FEATURES,
    OWN,
    PREVIOUS,
    draft_rows,
)
from tests.unit.drafters.builders import SMALL, document, segment

BIG = np.dtype("<u4")
WIDTH = 9
LONG_CONTEXT = list(range(200, 210))  # outweighs any number of matches of one token


def draft(output, prompt=(900,), pools=(), previous=(), floor=0.0, max_tokens=WIDTH, weights=None):
    """(tokens, cumulative chances, sources) drafted for a request. `pools`: (segment, source) pairs."""
    text = [*prompt, *output]
    context = np.array([[*text, *[0] * 4]], np.int32)
    table = np.array(
        [
            (
                part.tokens.ctypes.data,
                part.index.ctypes.data,
                part.num_tokens,
                part.tokens.dtype.itemsize,
                source,
            )
            for part, source in pools
        ],
        np.int64,
    ).reshape(-1, 5)
    earlier = np.array(previous, np.int32)
    state = (
        np.zeros((1, WIDTH), np.int32),
        np.zeros((1, WIDTH)),
        np.zeros((1, WIDTH), np.int8),
        np.zeros((1, WIDTH, NUM_FEATURES)),
        np.zeros(1, np.int64),
    )
    zero = np.zeros(1, np.int64)
    draft_rows(
        0,
        1,
        context,
        np.array([len(text)]),
        zero,
        zero,
        np.array([len(prompt)]),
        np.array([[earlier.ctypes.data, len(earlier)]]),
        table,
        np.array([[0, len(pools)]]),
        np.arange(len(pools)),
        Calibration().weights if weights is None else weights,
        floor,
        np.array([max_tokens]),
        state,
    )
    count = int(state[4][0])
    return tuple(array[0, :count].tolist() for array in state[:3])


def tokens(*arguments, **options):
    return draft(*arguments, **options)[0]


def test_the_longest_match_continues():
    pool = segment([1, 2, 3, 40, 41], [8, 2, 3, 50, 51])
    assert tokens([1, 2, 3], pools=[(pool, GROUP)]) == [40, 41]
    assert tokens([8, 2, 3], pools=[(pool, GROUP)]) == [50, 51]


@pytest.mark.parametrize("dtype", [SMALL, BIG], ids=str)
def test_equal_matches_are_decided_by_number(dtype):
    pool = segment([5, 7, 1], [5, 8, 2], [5, 8, 2], [5, 7, 1], [5, 8, 3], dtype=dtype)
    assert tokens([900, 5], pools=[(pool, GROUP)])[0] == 8
    assert tokens([900, 5], pools=[(pool, GROUP)])[:2] == [8, 2], "only texts that agree so far go on voting"


def test_one_longer_match_outweighs_three_shorter_ones():
    pool = segment([9, 5, 7], [5, 8], [5, 8], [5, 8])
    assert tokens([9, 5], pools=[(pool, GROUP)])[0] == 7


def test_a_draft_ends_with_the_text_that_it_copies():
    pool = segment([1, 2, 3], [900, 901])
    assert tokens([1], pools=[(pool, GROUP)]) == [2, 3]
    assert tokens([3], pools=[(pool, GROUP)]) == []


def test_nothing_known_nothing_drafted():
    assert tokens([1]) == []
    assert tokens([1], pools=[(Segment.build([], SMALL), GROUP)]) == []
    assert tokens([777], pools=[(segment([1, 2]), GROUP)]) == []


def test_the_own_context_is_a_source_prompt_included():
    drafted, _, sources = draft([2], prompt=(1, 2, 3, 4))
    assert drafted == [3, 4, 2], "it ends where the context ends"
    assert sources == [OWN] * 3


def test_the_previous_text_outweighs_strangers():
    pool = segment([3, 70], [3, 70])
    drafted, _, sources = draft([3], pools=[(pool, GROUP)], previous=[3, 60, 61])
    assert drafted == [60, 61]
    assert sources == [PREVIOUS] * 2


def test_every_token_names_the_source_of_its_longest_match():
    near, far = segment([1, 2, 3, 4]), segment([2, 3, 9])
    drafted, _, sources = draft([1, 2], pools=[(near, DOMAIN), (far, GROUP)])
    assert drafted == [3, 4] and sources == [DOMAIN] * 2
    drafted, _, sources = draft([2], pools=[(far, GROUP)])
    assert drafted == [3, 9] and sources == [GROUP] * 2


def test_chances_never_rise_along_a_draft_and_agreement_raises_them():
    pool = segment([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    _, chances, _ = draft([1], pools=[(pool, GROUP)])
    assert chances == sorted(chances, reverse=True) and 0 < chances[-1] < chances[0] < 1
    _, divided, _ = draft([1], pools=[(segment([1, 2], [1, 2], [1, 9]), GROUP)])
    assert divided[0] < chances[0]


def test_the_floor_ends_a_draft_with_the_first_token_below_it():
    pool = segment(list(range(1, 10)))
    _, chances, _ = draft([1], pools=[(pool, GROUP)])
    floor = (chances[2] + chances[3]) / 2
    assert draft([1], pools=[(pool, GROUP)], floor=floor)[1] == chances[:4]
    assert len(tokens([1], pools=[(pool, GROUP)], floor=1.0)) == 1


@pytest.mark.parametrize("max_tokens", [0, 1, 3, WIDTH, WIDTH + 5])
def test_a_draft_is_never_longer_than_its_room(max_tokens):
    drafted = tokens([1], pools=[(segment(list(range(1, 60))), GROUP)], max_tokens=max_tokens)
    assert drafted == list(range(2, 2 + min(max_tokens, WIDTH)))


def test_more_occurrences_than_there_is_room_for():
    parts = [(segment(*[[1, 2, 3]] * 40), GROUP) for _ in range(2 + MAX_CANDIDATES // 24)]
    assert tokens([1], pools=parts)[0] == 2


@pytest.mark.parametrize("place", [0, 6, 11])
def test_each_of_many_segments_has_room(place):
    parts = [(segment(*[[1, 2, 3]] * 40), GROUP) for _ in range(11)]
    parts.insert(place, (segment([*LONG_CONTEXT, 1, 50]), GROUP))
    assert tokens([*LONG_CONTEXT, 1], pools=parts) == [50]


def test_more_segments_than_candidates():
    parts = [(segment([1, 2, 3]), GROUP) for _ in range(MAX_CANDIDATES + 40)]
    assert tokens([1], pools=parts)[0] == 2
    assert tokens([*LONG_CONTEXT, 1], pools=[(segment([*LONG_CONTEXT, 1, 50]), GROUP), *parts])[0] == 50


def test_four_byte_tokens():
    pool = Segment.build([document("a", 150000, 70000, 65535, 65536)], BIG)
    assert tokens([150000], pools=[(pool, GROUP)]) == [70000, 65535, 65536]
    assert tokens([150000], pools=[(segment([150000 % 65536, 5]), GROUP)]) == []


def test_at_its_beginning_a_text_follows_other_beginnings():
    pool = segment([900, 900], [1, 20], [7, 1, 30], [7, 1, 30])
    assert tokens([1], pools=[(pool, GROUP)])[0] == 20
    assert tokens([7, 1], pools=[(pool, GROUP)])[0] == 30
