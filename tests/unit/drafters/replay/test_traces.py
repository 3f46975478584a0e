import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafters.replay.traces import (
    Recording,
    TraceError,
    looping_share,
    percentile,
    read_trace,
    split_by_entity,
)


def recording(entity_id, output, group="g", prompt=(1, 2)):
    return Recording(entity_id, group, np.array(prompt, np.int32), np.array(output, np.int32))


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


ROWS = [
    {
        "entity_id": str(n),
        "group": "g" if n else "",
        "prompt_token_ids": [n + 1] * (n + 1),
        "output_token_ids": [n, 9, 9],
    }
    for n in range(5)
]


def test_rows_come_back_with_their_own_tokens(tmp_path):
    read = read_trace(write(tmp_path / "t.parquet", ROWS))
    assert [r.entity_id for r in read] == list("01234")
    assert [r.prompt.tolist() for r in read] == [row["prompt_token_ids"] for row in ROWS]
    assert [r.output.tolist() for r in read] == [row["output_token_ids"] for row in ROWS]
    assert [r.group for r in read] == ["all", "g", "g", "g", "g"]
    assert read[1].text.tolist() == [2, 2, 1, 9, 9]


def test_texts_that_leave_nothing_to_draft_are_left_out(tmp_path):
    rows = [*ROWS, ROWS[0] | {"output_token_ids": [1]}, ROWS[0] | {"output_token_ids": []}]
    assert len(read_trace(write(tmp_path / "t.parquet", rows))) == 5


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_what_is_no_trace_is_refused_by_name(tmp_path, content):
    path = tmp_path / "t.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=r"t\.parquet: not a trace"):
        read_trace(path)


def test_a_missing_column_is_refused(tmp_path):
    with pytest.raises(TraceError, match="not a trace with the columns"):
        read_trace(write(tmp_path / "t.parquet", [{"entity_id": "a", "group": "g"}]))


def test_every_entity_has_one_role_and_keeps_it():
    many = [recording(str(n // 2), [n, n]) for n in range(2000)]
    split = split_by_entity(many, 12)
    roles = [{r.entity_id for r in part} for part in (split.pool, split.warm, split.measured)]
    assert sum(map(len, roles)) == 1000 == len(set.union(*roles))
    assert 80 < len(roles[1]) < 160 and 80 < len(roles[2]) < 160
    assert {r.entity_id for r in split_by_entity(many[:500], 12).measured} <= roles[2]
    assert percentile("42") == 37 and percentile("movie-1") == 10


def test_looping_share_counts_8_grams_that_came_before_in_the_same_text():
    assert looping_share([recording("a", range(50)), recording("b", range(50))]) == 0.0
    once = [*range(8), *range(8)]  # 9 8-grams, one repeated
    assert looping_share([recording("a", once)]) == pytest.approx(1 / 9)
    assert looping_share([recording("a", [5] * 107)]) == pytest.approx(0.99)
    assert looping_share([recording("a", [1, 2, 3])]) == 0.0
