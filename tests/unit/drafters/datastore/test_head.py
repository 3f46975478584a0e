import numpy as np

from drafters.datastore import PoolHead
from tests.unit.drafters.builders import SMALL, document


def texts(head):
    return [doc.token_ids.tolist() for part in head.segments for doc in part.documents()]


def test_documents_are_there_at_once_in_order():
    head = PoolHead(SMALL, young_tokens=16)
    wanted = []
    for number in range(60):
        ids = [number, number + 1, number + 2]
        head.add([document(str(number), *ids)])
        wanted.append(ids)
        assert texts(head) == wanted
    assert head.num_tokens == 60 * 4


def test_segments_stay_few():
    head = PoolHead(SMALL, young_tokens=16)
    for number in range(1500):
        head.add([document(str(number), *range(7))])
        assert len(head.segments) <= 8
    sizes = [part.num_tokens for part in head.segments]
    assert sum(sizes) == 1500 * 8
    assert sizes == sorted(sizes, reverse=True)


def test_a_reader_may_keep_the_old_list():
    head = PoolHead(SMALL)
    head.add([document("a", 1)])
    held = head.segments
    head.add([document("b", 2)])
    assert [part.num_documents for part in held] == [1]
    assert texts(head) == [[1], [2]]


def test_empty_documents_and_empty_calls_change_nothing():
    head = PoolHead(SMALL)
    head.add([])
    head.add([document("a")])
    assert head.segments == [] and head.num_tokens == 0


def test_the_oldest_texts_go_when_the_budget_is_spent():
    head = PoolHead(SMALL, young_tokens=16, max_tokens=800)
    for number in range(400):
        head.add([document(str(number), *([number] * 9))])
        assert head.num_tokens <= 800
        assert max(part.num_tokens for part in head.segments) <= 100
    firsts = [ids[0] for ids in texts(head)]
    assert firsts == list(range(firsts[0], 400))
    assert head.num_tokens >= 700


def test_arrays_of_any_integer_type_are_taken():
    head = PoolHead(SMALL)
    for dtype in (np.int32, np.uint16, np.int64):
        head.add([document("a", *np.array([7], dtype))])
    assert texts(head) == [[7]] * 3
