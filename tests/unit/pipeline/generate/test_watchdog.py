from dataclasses import replace

import pytest

from pipeline.generate.progress import NO_PROGRESS
from pipeline.generate.watchdog import Watchdog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watchdog(clock):
    dog = Watchdog(stall_timeout_sec=10, start_timeout_sec=100, clock=clock)
    dog.starting(0)
    return dog


def test_a_start_has_a_limit_of_its_own(watchdog, clock):
    clock.now = 100
    assert watchdog.complaint(0) is None
    clock.now = 101
    assert watchdog.complaint(0) == "not ready after 101 s (cluster.start_timeout_sec)"


@pytest.mark.parametrize("sign", ["num_rows", "num_output_tokens", "num_decoded_tokens"])
def test_each_row_or_token_is_a_sign_of_life_and_the_same_answer_is_none(watchdog, clock, sign):
    clock.now = 90
    watchdog.ready(0)
    for count in range(1, 4):
        clock.now += 9
        watchdog.progress(0, replace(NO_PROGRESS, **{sign: count}))
        assert watchdog.complaint(0) is None
    clock.now += 11
    watchdog.progress(0, replace(NO_PROGRESS, **{sign: 3}, num_decode_steps=99))
    assert watchdog.complaint(0) == "hung: no progress for 11 s (cluster.stall_timeout_sec)"


def test_a_rest_between_shards_is_no_silence(watchdog, clock):
    watchdog.ready(0)
    clock.now = 50
    watchdog.alive(0)
    assert watchdog.complaint(0) is None


def test_a_driver_that_stood_still_blames_no_worker(watchdog, clock, caplog):
    watchdog.ready(0)
    clock.now = 5
    watchdog.driver_round()
    clock.now = 30  # 25 s in one round, with a stall timeout of 10
    watchdog.driver_round()
    assert watchdog.complaint(0) is None and "the driver stood still for 25 s" in caplog.text
    for clock.now in range(31, 42):
        watchdog.driver_round()
    assert watchdog.complaint(0) == "hung: no progress for 11 s (cluster.stall_timeout_sec)"


def test_a_long_stall_timeout_allows_for_long_rounds(clock):
    dog = Watchdog(stall_timeout_sec=600, start_timeout_sec=600, clock=clock)
    dog.starting(0)
    for clock.now in range(0, 660, 55):
        dog.driver_round()
    assert dog.complaint(0) == "not ready after 605 s (cluster.start_timeout_sec)"
