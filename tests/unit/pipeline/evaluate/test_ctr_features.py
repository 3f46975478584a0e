"""What CTR models see of an interaction."""

from datetime import timedelta

import numpy as np

from pipeline.evaluate.features import HISTORY, liked_before, make_inputs
from pipeline.evaluate.split import split_events
from pipeline.evaluation_settings import EvaluationSettings
from tests.evaluation import DAILY, IDS, START, interactions, tables_of

EVENTS = split_events(DAILY, IDS, START + timedelta(days=30), EvaluationSettings())


def test_histories_hold_what_was_liked_strictly_before():
    history = liked_before(EVENTS, 3)
    for row in range(len(EVENTS.users)):
        before = [
            EVENTS.items[other] + 1
            for other in range(row)
            if EVENTS.users[other] == EVENTS.users[row] and EVENTS.labels[other] > 0
        ]
        expected = before[::-1][:3]
        assert history[row].tolist() == expected + [0] * (3 - len(expected))


def test_ratings_of_the_same_moment_are_not_history():
    table = interactions([("u0", "i0", 5, 0), ("u0", "i1", 5, 0), ("u0", "i2", 1, 1), ("u0", "i3", 1, 2),
                          ("u0", "i1", 5, 3), ("u0", "i0", 1, 4), ("u0", "i2", 5, 5), ("u0", "i3", 1, 6),
                          ("u0", "i3", 5, 7)])  # fmt: skip
    events = split_events(table, IDS, START + timedelta(days=6), EvaluationSettings(validation_fraction=0.3))
    history = liked_before(events, 4)
    assert history[0].tolist() == history[1].tolist() == [0, 0, 0, 0]
    assert sorted(history[2].tolist()) == [0, 0, 1, 2]


def test_ids_that_were_not_trained_are_unknown():
    rows = [(f"u{n % 2}", f"i{n % 2}", 1 + 4 * (n % 3 > 0), n) for n in range(20)]
    rows += [("u2", "i3", 5, 21), ("u2", "i0", 1, 22)]
    table = interactions(rows)
    events = split_events(table, IDS, START + timedelta(days=20), EvaluationSettings())
    values = make_inputs(events, tables_of(table), 4).values
    assert values["user"][-2:].tolist() == [0, 0]
    assert values["item"][-2:].tolist() == [0, 1]
    assert values["user_age"][-1] == 0
    assert values["user_knowledge"][-1] == 3  # knowledge needs no training of the id
    assert values["item_knowledge"][-2] == 4


def test_every_field_fits_its_table():
    inputs = make_inputs(EVENTS, tables_of(DAILY), 5)
    for field in [*inputs.fields, *inputs.knowledge_fields]:
        array = inputs.values[field.name]
        assert array.dtype == np.int64
        assert array.shape[0] == len(EVENTS.users)
        assert (array.ndim == 2) == field.is_list
        assert array.min() >= 0
        assert array.max() < field.size
    assert any(field.name == HISTORY and field.shares == "item" for field in inputs.fields)
