"""How many rows of a run may fail: one rule for the job's exit code, publishing, and the report."""

NUM_ALWAYS_ALLOWED = 1  # of a handful of rows one is more than any small fraction


def too_many_failed(
    num_failed: int, num_planned: int, max_failed_fraction: float, num_carried: int = 0
) -> bool:
    """Whether so many of the planned rows failed that the run failed.

    The bound is a share of the planned rows, and never below one row unless the share is 0. A run that
    wrote none of its rows failed, unless that is a single one beside `num_carried` texts that stay.
    """
    floor = NUM_ALWAYS_ALLOWED if max_failed_fraction > 0 else 0
    if num_failed > max(max_failed_fraction * num_planned, floor):
        return True
    wrote_nothing = 0 < num_planned <= num_failed
    return wrote_nothing and max_failed_fraction < 1 and (num_planned > 1 or not num_carried)
