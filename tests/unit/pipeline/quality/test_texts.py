import numpy as np
import pytest

from pipeline.quality.texts import named_as_liked, prompt_ranks


@pytest.mark.parametrize(
    ("text", "is_liked"),
    [
        ("They enjoyed Alien.", True),
        ("They didn't enjoy Alien.", False),
        ("They did not really like Alien.", False),
        ("They loved Heat but disliked Alien.", False),
        ("They disliked Heat but loved Alien.", True),
        ("They disliked Heat. Alien was their favorite.", True),
        ("Alien is about a ship.", None),
        ("They enjoyed Heat.", None),
    ],
)
def test_what_a_text_says_of_a_title(text, is_liked):
    assert named_as_liked(text, "Alien") is is_liked


def test_rank_of_the_own_prompt():
    one, other = np.eye(2)
    assert prompt_ranks(np.stack([one, other]), np.stack([one, other])) == (0.0, 1.0)
    assert prompt_ranks(np.stack([one, other]), np.stack([other, one])) == (1.0, 0.0)
