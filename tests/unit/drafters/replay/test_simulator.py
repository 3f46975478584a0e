import numpy as np
import pytest

from drafters.replay.simulator import replay
from drafters.replay.traces import Recording


def recording(output, prompt=(1, 2, 3)):
    return Recording("e", "g", np.array(prompt, np.int32), np.array(output, np.int32))


class Scripted:
    """Drafts what `script(text so far)` says; notes what it was shown."""

    def __init__(self, script):
        self.script, self.shown, self.alive, self.finished = script, [], {}, 0

    def start(self, row, recording):
        assert row not in self.alive
        self.alive[row] = recording

    def propose(self, rows, context, num_tokens):
        assert sorted(self.alive) == rows.tolist()
        texts = [context[row, :length].tolist() for row, length in zip(rows, num_tokens, strict=True)]
        for row, text in zip(rows.tolist(), texts, strict=True):
            assert text == self.alive[row].text[: len(text)].tolist()
        self.shown.append(texts)
        self.later = [context[row, length:].any() for row, length in zip(rows, num_tokens, strict=True)]
        return [self.script(text) for text in texts]

    def finish(self, row):
        del self.alive[row]
        self.finished += 1


def test_without_drafts_a_step_yields_one_token():
    result = replay(Scripted(lambda text: []), [recording([10, 11, 12, 13])])
    assert (result.num_tokens, result.num_steps, result.num_drafted, result.num_calls) == (3, 3, 0, 3)
    assert result.tokens_per_step == 1.0 and result.drafted_per_step == 0.0


def test_accepted_drafts_and_the_token_that_the_verification_adds():
    drafter = Scripted(lambda text: [text[-1] + 1, text[-1] + 2])
    result = replay(drafter, [recording([10, 11, 12, 13, 14, 15, 16])])
    assert [texts[0][-1] for texts in drafter.shown] == [10, 13]
    assert (result.num_tokens, result.num_steps, result.num_drafted) == (6, 2, 4)


def test_a_draft_counts_up_to_its_first_difference():
    drafter = Scripted(lambda text: [text[-1] + 1, 99, text[-1] + 3])
    replay(drafter, [recording([10, 11, 12, 13])])
    assert [texts[0][-1] for texts in drafter.shown] == [10, 12]


def test_a_draft_beyond_the_end_is_drafted_in_vain():
    result = replay(Scripted(lambda text: [11, 12, 13, 14]), [recording([10, 11])])
    assert (result.num_tokens, result.num_steps, result.num_drafted) == (1, 1, 4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_batches_give_the_counts_of_single_requests(batch_size):
    recordings = [recording(range(10, 12 + 3 * n), prompt=range(1, 3 + n)) for n in range(6)]
    drafter = Scripted(lambda text: [text[-1] + 1] if text[-1] % 3 else [0])
    result = replay(drafter, recordings, batch_size)
    single = replay(Scripted(drafter.script), recordings)
    assert (result.num_tokens, result.num_steps, result.num_drafted) == (
        single.num_tokens,
        single.num_steps,
        single.num_drafted,
    )
    assert max(len(texts) for texts in drafter.shown) == min(batch_size, 6)
    assert drafter.finished == 6 and not drafter.alive


def test_the_future_is_not_in_the_context():
    drafter = Scripted(lambda text: [])
    replay(drafter, [recording(range(10, 30))])
    assert drafter.later == [False]


def test_nothing_to_replay():
    result = replay(Scripted(lambda text: []), [])
    assert result.num_steps == 0 and result.tokens_per_step == 0.0 and result.us_per_call == 0.0
