from pipeline.generate.shard_queue import MAX_BAD_ROWS, MAX_RETURNS, ShardQueue


def test_shards_are_handed_out_in_order_and_the_queue_ends_when_all_are_done():
    queue = ShardQueue(["a", "b"], max_attempts=2)
    assert [queue.take(False), queue.take(False), queue.take(True)] == ["a", "b", None]
    assert not queue.has_waiting and not queue.is_finished
    queue.done("a")
    queue.done("b")
    assert queue.is_finished and not queue.unfinished


def test_a_failed_shard_waits_for_the_others_and_then_for_an_idle_worker():
    queue = ShardQueue(["a", "b"], max_attempts=2)
    queue.take(True)
    queue.failed("a", "first")
    assert queue.take(False) == "b"
    assert queue.take(worker_is_idle=False) is None and queue.has_waiting
    assert queue.take(worker_is_idle=True) == "a"
    assert queue.runs_alone("a") and not queue.runs_alone("b")


def test_a_shard_is_given_up_after_its_attempts_with_the_last_reason():
    queue = ShardQueue(["a"], max_attempts=2)
    for reason in ("first", "last"):
        assert queue.take(True) == "a"
        queue.failed("a", reason)
    assert queue.is_finished and queue.unfinished == {"a": "last"}


def test_failures_in_a_row_are_counted_until_a_success():
    queue = ShardQueue(["a", "b", "c"], max_attempts=9)
    for shard in "abc":
        queue.take(True)
        if shard != "c":
            queue.failed(shard, "x")
    assert queue.num_failures_in_a_row == 2
    queue.done("c")
    assert queue.num_failures_in_a_row == 0


def test_giving_up_leaves_what_runs_alone():
    queue = ShardQueue(["a", "b"], max_attempts=2)
    queue.take(True)
    queue.give_up("broken")
    assert queue.unfinished == {"b": "broken"} and not queue.is_finished
    queue.done("a")
    assert queue.is_finished


def test_the_last_attempt_runs_row_by_row_until_a_bad_row_is_known_and_that_costs_no_attempt():
    queue = ShardQueue(["a"], max_attempts=2)
    queue.take(True)
    assert not queue.runs_row_by_row("a")
    queue.failed("a", "engine raised")
    for row in range(MAX_BAD_ROWS):
        assert queue.take(True) == "a" and queue.runs_row_by_row("a")
        queue.failed("a", f"row {row}", bad_row=row)
        assert queue.take(True) == "a" and not queue.runs_row_by_row("a")  # the others, together
        queue.failed("a", "engine raised again")
    assert queue.bad_rows("a") == {row: f"row {row}" for row in range(MAX_BAD_ROWS)}
    assert queue.take(True) == "a" and queue.runs_row_by_row("a")
    queue.failed("a", "one row too many", bad_row=MAX_BAD_ROWS)
    assert queue.is_finished and queue.unfinished == {"a": "one row too many"}


def test_the_rows_beside_a_bad_one_are_done_together():
    queue = ShardQueue(["a"], max_attempts=2)
    for reason, row in (("engine raised", None), ("row 7", 7)):
        queue.take(True)
        queue.failed("a", reason, row)
    assert queue.take(True) == "a" and not queue.runs_row_by_row("a") and queue.bad_rows("a") == {7: "row 7"}
    queue.done("a")
    assert queue.is_finished and not queue.unfinished


def test_finding_a_bad_row_is_no_failure_in_a_row():
    queue = ShardQueue(["a"], max_attempts=2)
    for row in (None, 0):
        queue.take(True)
        queue.failed("a", "x", row)
    assert queue.num_failures_in_a_row == 1


def test_a_shard_whose_rows_are_innocent_uses_its_attempts_and_is_never_run_row_by_row():
    queue = ShardQueue(["a"], max_attempts=3)
    for _ in range(3):
        assert queue.take(True) == "a" and not queue.runs_row_by_row("a")
        queue.failed("a", "no upload", rows_are_innocent=True)
    assert queue.is_finished and queue.unfinished == {"a": "no upload"}


def test_a_single_attempt_is_never_row_by_row():
    queue = ShardQueue(["a"], max_attempts=1)
    assert not queue.runs_row_by_row("a")


def test_a_shard_that_lost_its_machine_is_next_and_loses_no_attempt():
    queue = ShardQueue(["a", "b"], max_attempts=1)
    for _ in range(MAX_RETURNS):
        assert queue.take(False) == "a"
        queue.returned("a", "machine lost")
    assert queue.num_open == 2 and not queue.runs_alone("a")
    queue.take(False)
    queue.returned("a", "machine lost")  # one that takes down machine after machine is bad itself
    assert queue.unfinished == {"a": "machine lost"}
