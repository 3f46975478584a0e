import numpy as np

from drafters.messages import RequestStats
from drafters.request_decoding import RequestDecoding, VerifiedDraft


def decoding(*drafts: tuple[int, list[bool]]) -> RequestDecoding:
    request = RequestDecoding()
    for num_draft_tokens, relaxed in drafts:
        request.add(VerifiedDraft(num_draft_tokens, np.array(relaxed, np.bool_)))
    return request


def test_every_step_writes_what_was_accepted_and_one_token_more():
    request = decoding((0, []), (4, [False, True]), (3, [False, False, False]))
    assert request.stats(8) == RequestStats(3, 7, 5, 1)


def test_tokens_behind_the_end_of_the_text_are_not_counted():
    request = decoding((2, [True]), (4, [False, True, False, True]))
    assert request.stats(7) == RequestStats(2, 6, 5, 3)  # whole
    assert request.stats(6) == RequestStats(2, 6, 5, 3)  # ends with the last draft token
    assert request.stats(5) == RequestStats(2, 6, 4, 2)
    assert request.stats(3) == RequestStats(2, 6, 2, 1)


def test_a_request_without_drafts_has_its_steps():
    assert decoding((0, []), (0, [])).stats(2) == RequestStats(2, 0, 0, 0)
    assert RequestDecoding().stats(0) == RequestStats()
