"""Which shard runs next, which are tried again, and which are given up. Pure bookkeeping."""

from collections import Counter, deque
from collections.abc import Iterable

MAX_BAD_ROWS = 3  # rows that may be taken out of a shard before the shard itself counts as bad
MAX_RETURNS = 10  # times that a shard may lose its machine before that counts as its own failure


class ShardQueue:
    """Shards in order. A shard that failed goes to the end and runs alone in a worker from then on.

    Alone, because a shard that kills its worker would otherwise use up the attempts of the shards
    that happen to run beside it. In its last attempt it runs row by row: a failure then names its row,
    which is taken out of the shard, and the rest runs together again. Only if that fails too, the next
    bad row is looked for row by row. None of this is done for a shard whose rows are innocent.
    """

    def __init__(self, shards: Iterable[str], max_attempts: int) -> None:
        self.unfinished: dict[str, str] = {}  # shard given up -> last reason
        self._fresh = deque(shards)
        self.num_shards = len(self._fresh)
        self._suspects: deque[str] = deque()
        self._running: set[str] = set()
        self._num_attempts: Counter[str] = Counter()
        self._num_returns: Counter[str] = Counter()
        self._bad_rows: dict[str, dict[int, str]] = {}
        self._is_rows_fault: set[str] = set()  # shards that failed in a way that one of their rows may cause
        self._runs_without_bad_rows: set[str] = set()  # a row was taken out, the rest is to run together
        self._max_attempts = max_attempts
        self.num_failures_in_a_row = 0

    @property
    def num_open(self) -> int:
        """Shards that wait or run."""
        return len(self._fresh) + len(self._suspects) + len(self._running)

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

    def runs_row_by_row(self, shard: str) -> bool:
        """Whether this is the last attempt at a shard that failed before, and a bad row is looked for."""
        is_last = self.runs_alone(shard) and self._num_attempts[shard] >= self._max_attempts - 1
        return is_last and shard in self._is_rows_fault and shard not in self._runs_without_bad_rows

    def bad_rows(self, shard: str) -> dict[int, str]:
        """Rows of `shard` (their numbers in the plan's order) that stopped its worker, with the reason."""
        return dict(self._bad_rows.get(shard, {}))

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

    def failed(
        self, shard: str, reason: str, bad_row: int | None = None, rows_are_innocent: bool = False
    ) -> None:
        """`shard` ended without a part: to be tried again, or given up after the last attempt.

        `bad_row`: the one row that ran at that moment. Neither taking it out nor running the others
        together is an attempt: only a row that is not found, or one too many, is.
        """
        self._running.discard(shard)
        rows = self._bad_rows.setdefault(shard, {})
        if bad_row is not None and bad_row not in rows and len(rows) < MAX_BAD_ROWS:
            rows[bad_row] = reason
            self._runs_without_bad_rows.add(shard)
            self._suspects.append(shard)
            return
        self.num_failures_in_a_row += 1
        if not rows_are_innocent:
            self._is_rows_fault.add(shard)
            if shard in self._runs_without_bad_rows:
                self._runs_without_bad_rows.discard(shard)
                self._suspects.append(shard)
                return
        self._num_attempts[shard] += 1
        if self._num_attempts[shard] < self._max_attempts:
            self._suspects.append(shard)
        else:
            self.unfinished[shard] = reason

    def returned(self, shard: str, reason: str) -> None:
        """The machine that ran `shard` is gone, through no fault of the shard: it is next again."""
        self._num_returns[shard] += 1
        if self._num_returns[shard] > MAX_RETURNS:
            self.failed(shard, reason)
            return
        self._running.discard(shard)
        waiting = self._suspects if self.runs_alone(shard) else self._fresh
        waiting.appendleft(shard)

    def give_up(self, reason: str) -> None:
        """Let the waiting shards go untried."""
        for shard in (*self._fresh, *self._suspects):
            self.unfinished[shard] = reason
        self._fresh.clear()
        self._suspects.clear()
