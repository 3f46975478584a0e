import pytest

from drafters.replay.frontier import Duel, Point, compare, frontier, interpolate


def points(*pairs):
    return [Point(*pair) for pair in pairs]


def test_the_frontier_leaves_out_what_another_setting_beats():
    given = points((4, 2.0), (1, 1.5), (2, 1.4), (3, 1.9), (4, 2.2), (5, 2.2))
    assert frontier(given) == points((1, 1.5), (3, 1.9), (4, 2.2))


def test_between_two_settings_lies_their_mixture():
    line = points((2, 1.8), (4, 2.0))
    assert interpolate(line, 3) == pytest.approx(1.9)
    assert interpolate(line, 1) == pytest.approx(1.4), "from no drafts at all, one token a step"
    assert interpolate(line, 4) == pytest.approx(2.0)
    assert interpolate(line, 4.1) is None


def test_duels_are_held_where_both_have_been():
    duels = compare(points((2, 2.0), (4, 2.4)), points((3, 2.0), (6, 2.6)))
    assert [duel.drafted_per_step for duel in duels] == [2, 3, 4]
    assert duels[1].ours == pytest.approx(2.2) and duels[1].theirs == pytest.approx(2.0)
    assert duels[2].theirs == pytest.approx(2.2)


@pytest.mark.parametrize(("ours", "verdict"), [(2.1, "win"), (2.005, "even"), (2.0, "even"), (1.9, "loss")])
def test_the_verdict_is_plain(ours, verdict):
    assert Duel(3.0, ours, 2.0).verdict == verdict
    assert Duel(3.0, ours, 2.0).ratio == pytest.approx(ours / 2)
