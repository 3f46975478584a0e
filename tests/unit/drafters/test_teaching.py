import threading

import numpy as np

from drafters.laser import DraftKey, LaserDrafter
from drafters.teaching import Teacher
from tests.unit.drafters.builders import document


def test_it_does_not_wait_for_the_index_and_keeps_the_order():
    may_go_on, learned = threading.Event(), []

    def teach(kind, documents):
        may_go_on.wait(10)
        learned.append((kind, len(documents)))

    teacher = Teacher(teach)
    teacher.add("item", [document("a", 1)])
    teacher.add("user", [document("b", 1), document("c", 2)])
    assert learned == []
    may_go_on.set()
    teacher.wait()
    assert learned == [("item", 1), ("user", 2)]


def test_a_text_that_cannot_be_learned_is_told_and_the_next_one_is(caplog):
    learned = []

    def teach(kind, documents):
        if kind == "bad":
            raise ValueError("token ids must lie in [0, 65535)")
        learned.append(kind)

    teacher = Teacher(teach)
    teacher.add("bad", [document("a", 1)])
    teacher.add("item", [document("b", 1)])
    teacher.wait()
    assert learned == ["item"] and "1 texts of kind bad could not be learned" in caplog.text


def test_texts_that_come_while_steps_are_drafted_draft_in_the_end():
    """No update is lost between a step that lists the segments and a thread that adds one."""
    laser = LaserDrafter(1000, 4, fixed_price=0.01)
    laser.start("r", 1, DraftKey("item"))
    context = np.zeros((1, 64), np.int32)
    context[0, :3] = [7, 8, 9]
    teacher = Teacher(laser.teach)
    for number in range(200):
        teacher.add("item", [document(str(number), *range(100 + number, 110 + number))])
        laser.propose(["r"], np.zeros(1, np.int64), context, np.array([3]))
    teacher.add("item", [document("last", 7, 8, 9, 41, 42, 43)])
    teacher.wait()
    (draft,) = laser.propose(["r"], np.zeros(1, np.int64), context, np.array([3]))
    assert draft[:3] == [41, 42, 43]
