from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompts.chat import EncodedPrompt
from pipeline.prompts.fitting import longest_fitting


class Writer:
    """Prompts of a known length: `frame` tokens and the sum of the most recent ratings' lengths."""

    def __init__(self, frame, lengths):
        self.frame, self.lengths, self.rounds, self.written = frame, lengths, 0, 0

    def __call__(self, pairs):
        self.rounds += bool(pairs)
        self.written += len(pairs)
        return [EncodedPrompt(f"{row}/{shown}", [0] * self.size(row, shown)) for row, shown in pairs]

    def size(self, row, shown):
        recent = self.lengths[row][len(self.lengths[row]) - shown :]
        return self.frame + sum(recent)


@given(
    st.integers(0, 30), st.lists(st.lists(st.integers(1, 9), max_size=40), max_size=8), st.integers(1, 120)
)
def test_shows_as_many_ratings_as_fit(frame, lengths, budget):
    writer = Writer(frame, lengths)
    for row, fitted in enumerate(longest_fitting(writer, list(map(len, lengths)), budget)):
        fitting = [n for n in range(len(lengths[row]) + 1) if writer.size(row, n) <= budget]
        assert (fitted and fitted.size) == (max(fitting) if fitting else None)
        assert fitted is None or fitted.prompt.text == f"{row}/{fitted.size}"


def test_rows_that_are_too_long_are_searched_together_in_logarithmic_rounds():
    lengths = [[10] * 1000 for _ in range(50)] + [[1] for _ in range(50)]
    writer = Writer(5, lengths)
    longest_fitting(writer, list(map(len, lengths)), 105)
    assert writer.rounds <= 12
    assert writer.written <= 100 + 50 * 11
