import pyarrow as pa
import pytest

from pipeline.failure_bound import (
    NO_INTERACTIONS,
    KindCounts,
    count_kinds,
    first_objection,
    objection_to_prompts,
    too_many_failed,
)
from pipeline.schemas import FAILED


@pytest.mark.parametrize(
    ("num_failed", "num_planned", "fraction", "num_carried", "expected"),
    [
        (0, 0, 0.01, 0, False),
        (1, 5, 0.01, 0, False),  # one of a handful
        (2, 5, 0.01, 0, True),
        (1, 5, 0.0, 0, True),
        (2, 5, 0.01, 100_000, True),  # what is carried does not make room for failures
        (10, 1000, 0.01, 0, False),
        (11, 1000, 0.01, 0, True),
        (2, 2, 0.9, 0, True),  # nothing was written
        (1, 1, 0.01, 0, True),
        (1, 1, 0.01, 9, False),  # beside texts that stay
        (5, 5, 1.0, 0, False),  # asked for
    ],
)
def test_too_many_failed(num_failed, num_planned, fraction, num_carried, expected):
    assert too_many_failed(num_failed, num_planned, fraction, num_carried) is expected


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        # num_prompts, num_rejected, num_unknown, num_planned, num_failed, num_kept
        ((0, 8, 0, 0, 0, 0), 0.5, "none of 8 items has a text: 8 got no prompt"),
        ((0, 1, 0, 0, 0, 0), 0.01, "none of 1 items has a text: 1 got no prompt"),
        ((0, 0, 3, 0, 0, 0), 0.01, "none of 3 items has a text: 3 have no interactions before the cutoff"),
        ((4, 2, 0, 4, 4, 0), 0.9, "none of 6 items has a text: 2 got no prompt, 4 failed"),
        ((0, 1, 0, 0, 0, 9), 0.01, None),  # an earlier text stays
        ((90, 10, 0, 90, 0, 0), 0.1, None),
        ((90, 10, 0, 90, 1, 0), 0.1, "11 of 100 items have no new text (10 got no prompt)"),
        ((7, 1, 0, 7, 0, 0), 0.01, None),  # one of a handful
        ((7, 1, 0, 7, 0, 0), 0.0, "1 of 8 items have no new text (1 got no prompt)"),
        ((50, 0, 50, 50, 0, 0), 0.0, None),  # nothing is known of the others
        ((1000, 20, 0, 5, 0, 995), 0.02, None),  # a quiet night: of all entities, not of the five planned
        ((1000, 0, 0, 5, 3, 995), 0.02, "3 of 5 planned items failed"),
        ((0, 8, 0, 0, 0, 0), 1.0, None),  # asked for
    ],
)
def test_the_bound_is_of_the_entities_of_a_kind_with_those_that_got_no_prompt(counts, fraction, expected):
    names = ("num_prompts", "num_rejected", "num_unknown", "num_planned", "num_failed", "num_kept")
    items = KindCounts("item", **dict(zip(names, counts, strict=True)))
    users = KindCounts("user", num_prompts=100_000, num_planned=100_000)  # make no room for items
    found = first_objection([users, items], fraction)
    assert (found and found.split(", more than")[0]) == expected
    if expected and not expected.startswith("none"):
        assert found.endswith(f", more than max_failed_fraction={fraction:g} allows")


def test_entities_are_counted_by_kind_and_the_first_that_got_no_prompt_is_the_example():
    rows = [
        ("read", None, None, "no title"),
        ("prompt", "user", "u1", NO_INTERACTIONS),
        ("prompt", "user", "u2", "too long"),
        ("prompt", "item", "i1", "the title is empty"),
    ]
    names = ("stage", "kind", "entity_id", "reason")
    failed = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=FAILED)
    prompts = pa.table({"kind": ["user", "user", "item"]})
    kinds = count_kinds(prompts, prompts.slice(2), failed)
    assert kinds == [
        KindCounts("item", num_prompts=1, num_rejected=1, num_planned=1),
        KindCounts("user", num_prompts=2, num_rejected=1, num_unknown=1),
    ]
    assert objection_to_prompts(kinds, failed, 0.01) is None
    assert objection_to_prompts(kinds[1:], failed, 0.0) == (
        "1 of 3 users have no new text (1 got no prompt), more than max_failed_fraction=0 allows; "
        "for example user 'u2': too long"
    )
    nobody = count_kinds(prompts.slice(3), prompts.slice(3), failed)
    assert objection_to_prompts(nobody, failed, 1.0) == "no prompt could be written"
