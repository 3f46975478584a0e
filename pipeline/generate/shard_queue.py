"""Which shard runs next, which are tried again, and which are given up. Pure bookkeeping."""

from collections import Counter, deque
from collections.abc import Iterable


class ShardQueue:
    """Shards in order. A shard that failed goes to the end and runs alone in a worker from then on.

    Alone, because a shard that kills its worker would otherwise use up the attempts of the shards
    that happen to run beside it.
    """

    def __init__(self, shards: Iterable[str], max_attempts: int) -> None:
        self.unfinished: dict[str, str] = {}  # shard given up -> last reason
        self._fresh = deque(shards)
        self.num_shards = len(self._fresh)
        self._suspects: deque[str] = deque()
        self._running: set[str] = set()
        self._num_attempts: Counter[str] = Counter()
        self._max_attempts = max_attempts
        self.num_failures_in_a_row = 0

    @property
    def has_waiting(self) -> bool:
        """Whether a shard waits for a worker."""
        return bool(self._fresh or self._suspects)

    @property
    def is_finished(self) -> bool:
        """Whether every shard is done or given up."""
        return not self.has_waiting and not self._running

    def runs_alone(self, shard: str) -> bool:
        """Whether `shard` failed before."""
        return self._num_attempts[shard] > 0

    def take(self, worker_is_idle: bool) -> str | None:
        """The next shard for a worker, or None. One that failed before needs an idle worker."""
        if self._fresh:
            shard = self._fresh.popleft()
        elif self._suspects and worker_is_idle:
            shard = self._suspects.popleft()
        else:
            return None
        self._running.add(shard)
        return shard

    def done(self, shard: str) -> None:
        """`shard` is committed."""
        self._running.discard(shard)
        self.num_failures_in_a_row = 0

    def failed(self, shard: str, reason: str) -> None:
        """`shard` ended without a part: to be tried again, or given up after the last attempt."""
        self._running.discard(shard)
        self._num_attempts[shard] += 1
        self.num_failures_in_a_row += 1
        if self._num_attempts[shard] < self._max_attempts:
            self._suspects.append(shard)
        else:
            self.unfinished[shard] = reason

    def give_up(self, reason: str) -> None:
        """Let the waiting shards go untried."""
        for shard in (*self._fresh, *self._suspects):
            self.unfinished[shard] = reason
        self._fresh.clear()
        self._suspects.clear()
