"""Online logistic regression of acceptance: what a verified step teaches about drafted tokens."""

from typing import Any

import numba
import numpy as np

from drafters.retrieval.draft import NUM_FEATURES, chance, token_weights

# Of AdaGrad (Duchi et al., JMLR 2011), whose steps shrink as evidence grows. A token's own weight meets its
# evidence rarely and must learn more from it.
LEARNING_RATE = 0.1
TOKEN_LEARNING_RATE = 0.2


@numba.njit(nogil=True, cache=True)
def learn_rows(
    context: Any,  # int32 [batch, max_len]
    num_tokens: Any,  # [rows] tokens of each row's context, the new ones included
    rows: Any,  # [rows]
    slots: Any,  # [rows]
    drafted_at: Any,  # [slots] context length when the draft was made; 0: none
    num_proposed: Any,  # [slots] tokens that the verification saw
    mismatch_labels: Any,  # [slots] chance that a token other than the model's choice would have been taken
    weights: Any,
    squares: Any,
    state: Any,  # tokens, chances, sources, features, num_considered by slot
    counts: Any,  # int64 [sources, 2] drafted, accepted
) -> None:
    """Compare each draft with the tokens that came, in order, up to the first difference.

    Tokens that were drafted but not verified are compared as well: the model's own next
    token tells whether a strict rule would have accepted them, and the mismatch label what a relaxed one
    would have done. The calibration thus learns about drafts that are too unlikely to be worth verifying.
    """
    tokens, _, sources, features, num_considered = state
    for row in range(len(rows)):
        slot, length = slots[row], num_tokens[row]
        start = drafted_at[slot]
        if start == 0:
            continue
        text = context[rows[row]]
        mismatch_label = mismatch_labels[slot]
        matching = True
        for i in range(num_considered[slot]):
            known = matching and start + i < length
            hit = known and text[start + i] == tokens[slot, i]
            if i < num_proposed[slot]:
                counts[sources[slot, i], 0] += 1
                counts[sources[slot, i], 1] += 1 if hit else 0
            if not known:
                matching = False
                continue
            label = 1.0 if hit else (0.0 if i < num_proposed[slot] else mismatch_label)
            _update(weights, squares, features[slot, i], text[start + i - 1], tokens[slot, i], label)
            matching = hit


@numba.njit(nogil=True, cache=True)
def _update(weights: Any, squares: Any, features: Any, before: int, token: int, label: float) -> None:
    error = chance(weights, features, before, token) - label
    for i in range(NUM_FEATURES):
        _step(weights, squares, i, error * features[i], LEARNING_RATE)
    for i in token_weights(before, token):
        _step(weights, squares, i, error, TOKEN_LEARNING_RATE)


@numba.njit(nogil=True, cache=True)
def _step(weights: Any, squares: Any, i: int, gradient: float, rate: float) -> None:
    squares[i] += gradient * gradient
    weights[i] -= rate * gradient / np.sqrt(squares[i] + 1.0)
