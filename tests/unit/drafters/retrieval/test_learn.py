import numpy as np

from drafters.retrieval.draft import NUM_FEATURES, NUM_SOURCES, NUM_WEIGHTS, chance, token_weights
from drafters.retrieval.learn import learn_rows

PROMPT = 3


class Lesson:
    """One request: `draft` was made after PROMPT tokens, `num_proposed` of it verified, `came` came."""

    def __init__(self, draft, num_proposed, came, mismatch_label=0.0, drafted_at=PROMPT, features=None):
        width = max(len(draft), 1)
        context = np.zeros((1, 32), np.int32)
        context[0, PROMPT : PROMPT + len(came)] = came
        if features is None:  # each token has a feature of its own: its weight tells what it was taught
            features = np.eye(width, NUM_FEATURES)
        state = (
            np.array([[*draft, *[0] * (width - len(draft))]], np.int32),
            np.ones((1, width)),
            np.zeros((1, width), np.int8),
            features[None].astype(np.float64),
            np.array([len(draft)]),
        )
        self.weights, squares = np.zeros(NUM_WEIGHTS), np.zeros(NUM_WEIGHTS)
        self.counts = np.zeros((NUM_SOURCES, 2), np.int64)
        one = np.zeros(1, np.int64)
        learn_rows(
            context,
            np.array([PROMPT + len(came)]),
            one,
            one,
            np.array([drafted_at]),
            np.array([num_proposed]),
            np.array([mismatch_label]),
            self.weights,
            squares,
            state,
            self.counts,
        )

    def signs(self, count):
        return np.sign(self.weights[:count]).astype(int).tolist()


def test_verified_tokens_that_came_raise_the_chance():
    assert Lesson([7, 8], 2, [7, 8, 9]).signs(3) == [1, 1, 0]


def test_the_first_difference_lowers_it_and_what_follows_teaches_nothing():
    lesson = Lesson([7, 8, 9, 9], 4, [7, 5])
    assert lesson.signs(4) == [1, -1, 0, 0]
    assert lesson.counts[0].tolist() == [4, 1]


def test_a_token_that_agrees_again_after_a_difference_teaches_nothing():
    assert Lesson([7, 8, 9], 3, [1, 8, 9]).signs(3) == [-1, 0, 0]


def test_an_unverified_token_is_judged_by_the_models_own_next_one():
    agreeing = Lesson([7, 8], 1, [7, 8])
    assert agreeing.signs(2) == [1, 1]
    differing = Lesson([7, 8], 1, [7, 5])
    assert differing.signs(2) == [1, -1]
    assert agreeing.counts[0].tolist() == differing.counts[0].tolist() == [1, 1]


def test_a_relaxed_rule_would_have_taken_some_unverified_mismatches():
    strict = Lesson([7], 0, [5], mismatch_label=0.0).weights[0]
    relaxed = Lesson([7], 0, [5], mismatch_label=0.4).weights[0]
    assert strict < relaxed < 0
    assert Lesson([7], 0, [5], mismatch_label=0.9).weights[0] > 0
    assert Lesson([7], 1, [5], mismatch_label=0.9).weights[0] == strict, "verified: it was refused in fact"


def test_what_is_not_known_yet_teaches_nothing():
    lesson = Lesson([7, 8, 9], 1, [7])
    assert lesson.signs(3) == [1, 0, 0]


def test_a_request_without_a_draft_is_left_out():
    assert not Lesson([7], 1, [7], drafted_at=0).weights.any()


def test_repeated_lessons_converge_to_the_share_of_acceptances():
    generator = np.random.default_rng(0)
    features = np.zeros((1, NUM_FEATURES))
    features[0, 0] = 1.0
    weights, squares = np.zeros(NUM_WEIGHTS), np.zeros(NUM_WEIGHTS)
    state = (
        np.array([[7]], np.int32),
        np.ones((1, 1)),
        np.zeros((1, 1), np.int8),
        features[None],
        np.array([1]),
    )
    counts, zero = np.zeros((NUM_SOURCES, 2), np.int64), np.zeros(1, np.int64)
    for _ in range(4000):
        context = np.array([[0, 7 if generator.random() < 0.8 else 1]], np.int32)
        learn_rows(
            context,
            np.array([2]),
            zero,
            zero,
            np.array([1]),
            np.array([1]),
            np.zeros(1),
            weights,
            squares,
            state,
            counts,
        )
    assert abs(chance(weights, features[0], 0, 7) - 0.8) < 0.04
    assert abs(counts[0, 1] / counts[0, 0] - 0.8) < 0.03


def taught(*lessons):
    """Weights after `lessons`: (token before, drafted token, whether it came), on equal evidence."""
    weights, squares = np.zeros(NUM_WEIGHTS), np.zeros(NUM_WEIGHTS)
    state = (
        np.zeros((1, 1), np.int32),
        np.ones((1, 1)),
        np.zeros((1, 1), np.int8),
        np.zeros((1, 1, NUM_FEATURES)),
        np.array([1]),
    )
    one, counts = np.ones(1, np.int64), np.zeros((NUM_SOURCES, 2), np.int64)
    for before, token, came in lessons:
        state[0][0, 0] = token
        context = np.array([[before, token if came else token + 1]], np.int32)
        zero, length = np.zeros(1, np.int64), np.array([2])
        learn_rows(context, length, zero, zero, one, one, np.zeros(1), weights, squares, state, counts)
    return weights


def test_a_token_that_is_often_refused_is_trusted_less_than_another_on_equal_evidence():
    weights = taught(*[(4, 7, True), (5, 70000, False)] * 20)
    evidence = np.zeros(NUM_FEATURES)
    assert chance(weights, evidence, 900, 7) > 0.6 > 0.4 > chance(weights, evidence, 900, 70000)
    assert chance(weights, evidence, 4, 900) > 0.6 > 0.4 > chance(weights, evidence, 5, 900)
    assert chance(weights, evidence, 900, 901) == 0.5, "other tokens are judged as before"


def test_the_pair_tells_what_neither_token_does():
    pairs = [(4, 7, True), (4, 8, False), (5, 7, False), (5, 8, True)]
    weights, evidence = taught(*pairs * 50), np.zeros(NUM_FEATURES)
    for before, token, came in pairs:
        assert (chance(weights, evidence, before, token) > 0.5) == came


def test_token_weights_lie_behind_those_of_the_features_and_apart():
    random = np.random.default_rng(0)
    for before, token in random.integers(0, 2**31 - 1, (1000, 2)):
        first, second, third = token_weights(before, token)
        assert NUM_FEATURES <= first < second < third < NUM_WEIGHTS


def test_token_ids_in_a_row_fall_into_different_buckets():
    assert len({token_weights(1, token)[0] for token in range(1000)}) > 800
