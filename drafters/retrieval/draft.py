"""From retrieved occurrences to a draft: votes, calibrated chances, one native call for all rows.

Every occurrence of the context's end proposes its continuation. Token by token, the occurrences that
agree with the draft so far vote with a weight that grows with the context they share; the winner's chance
of acceptance is a logistic function of how it won (`features`) and of which token it is (`token_weights`),
learned online (`learn`).
"""

from typing import Any

import numba
import numpy as np

from drafters.retrieval.search import (
    MAX_MATCH,
    nearest,
    nearest_by_scan,
    view_i32,
    view_u16,
    view_u32,
)

OWN, PREVIOUS, GROUP, DOMAIN = 0, 1, 2, 3
SOURCES = ("own", "previous", "group", "domain")
"""Draft sources: the request's own context, its entity's previous text, its group's pool, other groups."""
NUM_SOURCES = 4

NEIGHBOURS_POOL = 24  # occurrences taken from one segment, fewer where there are many segments
NEIGHBOURS_TEXT = 16  # occurrences taken from a single text
MAX_CANDIDATES = 256
NUM_FEATURES = 20
TOKEN_BUCKETS = 4096
NUM_WEIGHTS = NUM_FEATURES + 3 * TOKEN_BUCKETS  # of the features, then of three hashes of the tokens
END = -1  # a continuation that has run out

# Vote weights. A token more of shared context outweighs three competitors; the request's own text and its
# entity's previous one outweigh strangers' texts. Found on recordings with drafters.replay, see docs.
VOTE_GROWTH = 4.0
VOTE_LENGTH_LIMIT = 24
VOTE_OWN_TEXT = 30.0


@numba.njit(nogil=True, cache=True)
def _copy_continuation(tokens: Any, position: int, limit: int, separator: int, target: Any) -> None:
    """Copy what follows `position` into `target`, up to its width, the text's end, or `limit`."""
    width = len(target)
    for offset in range(width):
        source = position + 1 + offset
        if source >= limit or tokens[source] == separator:
            target[offset:] = END
            return
        target[offset] = tokens[source]


@numba.njit(nogil=True, cache=True)
def _search_pool(
    tokens: Any,
    index: Any,
    suffix: Any,
    suffix_length: int,
    separator: int,
    source: int,
    table: Any,
    found: int,
    room: int,
) -> int:
    """Add at most `room` of the nearest occurrences of one segment to the candidate table."""
    continuations, lengths, sources, positions = table
    count = nearest(tokens, index, suffix, suffix_length, positions[:room], lengths[found : found + room])
    for i in range(count):
        _copy_continuation(tokens, positions[i], len(tokens), separator, continuations[found + i])
        sources[found + i] = source
    return found + count


@numba.njit(nogil=True, cache=True)
def _search_text(
    tokens: Any,
    num_tokens: int,
    limit: int,
    suffix: Any,
    suffix_length: int,
    source: int,
    table: Any,
    found: int,
) -> int:
    """Add the nearest occurrences within one text, which has no index, to the candidate table."""
    continuations, lengths, sources, positions = table
    room = min(NEIGHBOURS_TEXT, MAX_CANDIDATES - found)
    count = nearest_by_scan(
        tokens, num_tokens, suffix, suffix_length, positions[:room], lengths[found : found + room]
    )
    for i in range(count):
        _copy_continuation(tokens, positions[i], limit, END, continuations[found + i])
        sources[found + i] = source
    return found + count


@numba.njit(nogil=True, cache=True)
def _count_beginning(table: Any, first: int, last: int, suffix_length: int) -> None:
    """Count the common beginning of output and text as one token more, as the separator is in pools."""
    _, lengths, _, positions = table
    for i in range(first, last):
        if suffix_length < MAX_MATCH and positions[i - first] + 1 == suffix_length == lengths[i]:
            lengths[i] += 1


@numba.njit(nogil=True, cache=True)
def _fill_suffix(context: Any, length: int, start: int, boundary: int, suffix: Any) -> int:
    """Write the last tokens of context[start:length] backwards into `suffix`, then `boundary` if it fits."""
    count = 0
    while count < MAX_MATCH and length - 1 - count >= start:
        suffix[count] = context[length - 1 - count]
        count += 1
    if count < MAX_MATCH and boundary >= 0:
        suffix[count] = boundary
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def _search_segment(
    segment: Any, text: Any, length: int, start: int, suffix: Any, table: Any, found: int, room: int
) -> int:
    """Add the nearest occurrences in a row of the segment table of what ends text[start:length]."""
    size, source = segment[2], segment[4]
    index = view_i32(segment[1], size)
    if segment[3] == 2:
        end = 0xFFFF
        count = _fill_suffix(text, length, start, end, suffix)
        return _search_pool(view_u16(segment[0], size), index, suffix, count, end, source, table, found, room)
    end = 0xFFFFFFFF
    count = _fill_suffix(text, length, start, end, suffix)
    return _search_pool(view_u32(segment[0], size), index, suffix, count, end, source, table, found, room)


@numba.njit(nogil=True, cache=True)
def _vote(table: Any, agreeing: Any, depth: int, ballot: Any) -> int:
    """Count the votes at `depth` of the candidates `agreeing`; fill `ballot`, return its distinct tokens."""
    continuations, lengths, sources, _ = table
    tokens, scores, votes, reach = ballot
    distinct = 0
    for i in agreeing:
        token = continuations[i, depth]
        if token == END:
            continue
        length = lengths[i] + depth
        score = VOTE_GROWTH ** min(length, VOTE_LENGTH_LIMIT)
        if sources[i] <= PREVIOUS:
            score *= VOTE_OWN_TEXT
        slot = 0
        while slot < distinct and tokens[slot] != token:
            slot += 1
        if slot == distinct:
            tokens[slot], scores[slot], votes[slot] = token, 0.0, 0
            reach[slot, :] = 0
            distinct += 1
        scores[slot] += score
        votes[slot] += 1
        reach[slot, sources[i]] = max(reach[slot, sources[i]], length)
    return distinct


@numba.njit(nogil=True, cache=True)
def _describe(ballot: Any, distinct: int, depth: int, features: Any) -> int:
    """Choose the token with most votes, write its features; return its slot of the ballot."""
    _, scores, votes, reach = ballot
    winner = 0
    total_score, total_votes = 0.0, 0
    for slot in range(distinct):
        total_score += scores[slot]
        total_votes += votes[slot]
        if scores[slot] > scores[winner]:
            winner = slot
    share = scores[winner] / total_score
    count = votes[winner]
    longest = reach[winner].max()
    features[:] = 0.0
    features[0] = 1.0
    features[1] = np.log2(1.0 + longest)
    features[2] = np.log((share + 0.02) / (1.02 - share))
    features[3] = np.log((count + 0.3) / (total_votes - count + 0.3))
    features[4] = np.log2(count)
    for source in range(NUM_SOURCES):
        features[5 + source] = np.log2(1.0 + reach[winner, source])
        features[9 + source] = 1.0 if reach[winner, source] == longest else 0.0
    features[13] = 0.3 * min(depth, 6)
    features[14] = 1.0 if total_votes == 1 else 0.0
    features[15] = 1.0 if longest == 1 else 0.0
    features[16] = 1.0 if longest == 2 else 0.0
    features[17] = 1.0 if longest >= 8 else 0.0
    features[18] = 1.0 if longest >= 16 else 0.0
    features[19] = 0.3 * features[1] * features[2]
    return winner


@numba.njit(nogil=True, cache=True)
def token_weights(before: int, token: int) -> Any:
    """The weights of `token`, of the token before it, and of the pair: three indices into the weights.

    Some tokens are safe to draft on thin evidence (what ends a set phrase) and some are not on any (what
    begins a name). Tokens share buckets by a hash, so the vocabulary may have any size.
    """
    first = NUM_FEATURES + _bucket(token)
    second = NUM_FEATURES + TOKEN_BUCKETS + _bucket(before)
    return first, second, NUM_FEATURES + 2 * TOKEN_BUCKETS + _bucket(before * 31 + 7 * token)


@numba.njit(inline="always")
def _bucket(value: int) -> int:
    """A multiplicative hash (Knuth): the middle bits of the product."""
    return ((value * 2654435761) >> 16) & (TOKEN_BUCKETS - 1)


@numba.njit(nogil=True, cache=True)
def chance(weights: Any, features: Any, before: int, token: int) -> float:
    """The chance that `token` is accepted after `before`, given that all before it was."""
    first, second, third = token_weights(before, token)
    total = weights[first] + weights[second] + weights[third]
    for i in range(NUM_FEATURES):
        total += weights[i] * features[i]
    return 1.0 / (1.0 + np.exp(-total))


@numba.njit(nogil=True, cache=True)
def _extend_draft(
    table: Any,
    found: int,
    last_token: int,
    weights: Any,
    floor: float,
    max_tokens: int,
    ballot: Any,
    agreeing: Any,
    out: Any,
) -> int:
    """Draft what follows `last_token` while the chance that all of it is accepted is at least `floor`.

    One token below the floor is still described: what becomes of it teaches the calibration.
    """
    continuations = table[0]
    tokens, chances, sources, features = out
    for i in range(found):
        agreeing[i] = i
    num_agreeing = found
    reached, before = 1.0, last_token
    for depth in range(max_tokens):
        distinct = _vote(table, agreeing[:num_agreeing], depth, ballot)
        if distinct == 0:
            return depth
        winner = _describe(ballot, distinct, depth, features[depth])
        token = ballot[0][winner]
        reached *= chance(weights, features[depth], before, token)
        before = token
        tokens[depth], chances[depth] = token, reached
        sources[depth] = np.argmax(ballot[3][winner])
        if reached < floor:
            return depth + 1
        num_kept = 0
        for i in agreeing[:num_agreeing]:
            if continuations[i, depth] == token:
                agreeing[num_kept] = i
                num_kept += 1
        num_agreeing = num_kept
    return max_tokens


@numba.njit(nogil=True, cache=True)
def _work_space(width: int) -> Any:
    """Room for one row's candidates (continuations, lengths, sources, positions) and for one ballot."""
    table = (
        np.empty((MAX_CANDIDATES, width), np.int32),
        np.empty(MAX_CANDIDATES, np.int64),
        np.empty(MAX_CANDIDATES, np.int64),
        np.empty(MAX_CANDIDATES, np.int64),
    )
    ballot = (
        np.empty(MAX_CANDIDATES, np.int32),
        np.empty(MAX_CANDIDATES, np.float64),
        np.empty(MAX_CANDIDATES, np.int64),
        np.empty((MAX_CANDIDATES, NUM_SOURCES), np.int64),
    )
    return table, ballot


@numba.njit(nogil=True, cache=True)
def draft_rows(
    first: int,
    last: int,
    context: Any,  # int32 [batch, max_len]
    num_tokens: Any,  # [rows] tokens of each row's context
    rows: Any,  # [rows] its row in `context`
    slots: Any,  # [rows] its request's slot in the state arrays
    output_start: Any,  # [slots] first generated token
    previous: Any,  # int64 [slots, 2] address and length of the entity's previous text, int32
    segments: Any,  # int64 [segments, 5] tokens address, index address, length, itemsize, source
    segment_offsets: Any,  # [slots + 1] ranges in `segment_lists`
    segment_lists: Any,
    weights: Any,
    floor: float,
    max_tokens: Any,  # [rows]
    state: Any,  # tokens, chances, sources, features, num_considered by slot
) -> None:
    """Draft for rows `first` to `last` of the step; results go to the requests' slots of `state`."""
    width = state[0].shape[1]
    table, ballot = _work_space(width)
    agreeing = np.empty(MAX_CANDIDATES, np.int64)
    suffix = np.empty(MAX_MATCH, np.int64)
    for row in range(first, last):
        slot, length = slots[row], num_tokens[row]
        text = context[rows[row]]
        found = 0
        count = _fill_suffix(text, length, 0, END, suffix)
        found = _search_text(text, length - 1, length, suffix, count, OWN, table, found)
        if previous[slot, 1] > 0:
            earlier = view_i32(previous[slot, 0], previous[slot, 1])
            count = _fill_suffix(text, length, output_start[slot], END, suffix)
            num_own = found
            found = _search_text(earlier, len(earlier), len(earlier), suffix, count, PREVIOUS, table, found)
            _count_beginning(table, num_own, found, count)
        end = segment_offsets[slot, 1]
        for entry in range(segment_offsets[slot, 0], end):
            segment = segments[segment_lists[entry]]
            # An equal share of what is left, rounded up: none is left out, the first ones least of all.
            share = (MAX_CANDIDATES - found + end - entry - 1) // (end - entry)
            room = min(NEIGHBOURS_POOL, share)
            found = _search_segment(segment, text, length, output_start[slot], suffix, table, found, room)
        out = (state[0][slot], state[1][slot], state[2][slot], state[3][slot])
        state[4][slot] = _extend_draft(
            table,
            found,
            text[length - 1],
            weights,
            floor,
            min(max_tokens[row], width),
            ballot,
            agreeing,
            out,
        )
