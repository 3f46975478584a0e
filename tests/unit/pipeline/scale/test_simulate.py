import pytest

from pipeline.scale.simulate import DriverCosts, Machines, Workload, simulate

FREE = DriverCosts(0.0, 0.0)
STEADY = Workload(num_shards=400, shard_sec=10.0, times=(10.0,))
SCATTERED = Workload(num_shards=400, shard_sec=10.0, times=(5.0, 10.0, 30.0))


@pytest.mark.parametrize("num_workers", [1, 2, 20])
def test_steady_work_scales_without_loss(num_workers):
    played = simulate(STEADY, Machines(num_workers), FREE)
    assert played.seconds == pytest.approx(400 * 10 / 2 / num_workers)
    assert played.efficiency == pytest.approx(1.0)
    assert (played.num_lost, played.num_repeated, played.num_unfinished) == (0, 0, 0)


def test_scattered_work_loses_at_the_end_only():
    assert 0.9 < simulate(SCATTERED, Machines(10), FREE).efficiency < 1.0
    assert simulate(SCATTERED, Machines(200), FREE).efficiency < 0.6  # one shard for each place


def test_the_same_arguments_give_the_same_run():
    machines = Machines(10, slow_fraction=0.2, losses_per_hour=20, replace_sec=30)
    assert simulate(SCATTERED, machines, FREE, seed=1) == simulate(SCATTERED, machines, FREE, seed=1)
    assert simulate(SCATTERED, machines, FREE, seed=1) != simulate(SCATTERED, machines, FREE, seed=2)


def test_slow_workers_cost_no_more_than_their_own_speed_and_the_tail():
    calm = simulate(STEADY, Machines(20), FREE)
    slow = simulate(STEADY, Machines(20, slow_fraction=0.1, slow_factor=3.0), FREE, seed=3)
    assert calm.seconds < slow.seconds <= calm.seconds / (1 - 0.1 * 2 / 3) + 2 * 3 * 10 + 30


def test_lost_workers_repeat_their_shards_and_every_shard_ends():
    played = simulate(STEADY, Machines(10, losses_per_hour=60, replace_sec=30), FREE)
    assert played.num_lost > 0 and played.num_unfinished == 0
    assert 0 < played.num_repeated <= 2 * played.num_lost
    assert played.seconds > 200


def test_a_slow_driver_becomes_the_bottleneck_and_is_seen():
    played = simulate(STEADY, Machines(20), DriverCosts(per_worker_sec=0.0, per_shard_sec=1.0))
    assert played.driver_share > 0.75
    assert played.seconds >= 400  # one second for each shard
    asking = simulate(STEADY, Machines(20), DriverCosts(0.0, 1.0, questions_share=0.5))
    assert asking.seconds >= 800  # it has half its time for them
    fast = simulate(STEADY, Machines(20), DriverCosts(per_worker_sec=1e-4, per_shard_sec=1e-4))
    assert fast.driver_share < 0.01 and fast.efficiency > 0.99
