import pyarrow as pa
import pytest

from pipeline.output_bounds import COUNTED_COLUMNS, OutputCounts, count_outputs, objection_to, total_of
from pipeline.publish_settings import PublishSettings
from pipeline.schemas import KNOWLEDGE

COUNTED = pa.schema([KNOWLEDGE.field(name) for name in COUNTED_COLUMNS])


def rows(*changes: dict) -> pa.Table:
    good = {"kind": "item", "text": "x", "finish_reason": "stop"}
    return pa.Table.from_pylist([good | change for change in changes], COUNTED)


def test_every_fault_is_counted_by_kind():
    counts = count_outputs(
        rows(
            {},
            {"text": "\u2003\n", "finish_reason": "length"},
            {"finish_reason": "repetition", "num_control_tokens": 3},
            {"kind": "user", "num_control_tokens": 0, "num_reasoning_tokens": 90},
        )
    )
    assert counts == {"item": OutputCounts(3, 1, 1, 1, 1, 0), "user": OutputCounts(1, 0, 0, 0, 0, 1)}
    assert total_of(counts) == OutputCounts(4, 1, 1, 1, 1, 1)
    assert count_outputs(rows()) == {}


@pytest.mark.parametrize(
    ("num_rows", "num_empty", "fraction", "is_refused"),
    [
        (1000, 10, 0.01, False),
        (1000, 11, 0.01, True),
        (8, 1, 0.01, False),  # one of a handful
        (8, 2, 0.01, True),
        (8, 1, 0.0, True),
        (1, 1, 0.01, True),  # all of them
        (8, 8, 1.0, False),  # asked for
        (0, 0, 0.0, False),
    ],
)
def test_a_share_beyond_its_bound_is_refused(num_rows, num_empty, fraction, is_refused):
    bounds = PublishSettings(max_empty_fraction=fraction)
    objection = objection_to({"item": OutputCounts(num_rows, num_empty)}, bounds)
    assert (objection is not None) is is_refused


def test_good_texts_of_one_kind_do_not_hide_that_those_of_the_other_are_empty():
    by_kind = {"item": OutputCounts(300, 300), "user": OutputCounts(1_000_000)}
    assert objection_to(by_kind, PublishSettings()) == (
        "300 of 300 texts of items are empty, more than publish.max_empty_fraction=0.01"
    )
    assert objection_to(by_kind, PublishSettings(min_judged_rows=301)) is None
