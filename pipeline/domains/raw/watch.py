"""How far the reading of raw files is: bytes as they lie on disk, compressed or not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class ReadProgress:
    """`num_bytes` of `size_bytes` (None: unknown) of the file `name` are read."""

    name: str
    num_bytes: int
    size_bytes: int | None


OnRead = Callable[[ReadProgress | None], None]  # None: nothing is being read any more
_on_read: ContextVar[OnRead | None] = ContextVar("on_read", default=None)


@contextmanager
def watch_reading(on_read: OnRead) -> Iterator[None]:
    """Tell `on_read` of every piece that is read while the block runs, in this thread."""
    token = _on_read.set(on_read)
    try:
        yield
    finally:
        _on_read.reset(token)


def end_reading() -> None:
    """Tell whoever watches that no file is being read: not every file is read to its end."""
    if (on_read := _on_read.get()) is not None:
        on_read(None)


def is_watched() -> bool:
    """Whether somebody shows the progress, so that no message needs to."""
    return _on_read.get() is not None


def watched(file: Any, name: str, size_bytes: int | None) -> Any:
    """`file`, binary and open for reading, so that whoever watches learns of its reads."""
    on_read = _on_read.get()
    return file if on_read is None else _Watched(file, name, size_bytes, on_read)


class _Watched:
    """A file that reports what is read of it."""

    def __init__(self, file: Any, name: str, size_bytes: int | None, on_read: OnRead) -> None:
        self._file = file
        self._name, self._size_bytes, self._on_read = name, size_bytes, on_read
        self._num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """As the file's own; what it returns counts."""
        content: bytes = self._file.read(size)
        self._num_bytes += len(content)
        self._on_read(ReadProgress(self._name, self._num_bytes, self._size_bytes))
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class ReadingBar:
    """A bar for each file that is large enough to wait for. It is gone when the file is read."""

    MIN_BYTES = 32 << 20

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._name = ""

    def __call__(self, state: ReadProgress | None) -> None:
        """Show `state`."""
        if state is None:
            self.close()
            return
        if state.size_bytes is None or state.size_bytes < self.MIN_BYTES:
            return
        if self._progress is None or state.name != self._name:
            self._begin(state)
        assert self._progress is not None
        self._progress.update(self._task, completed=min(state.num_bytes, state.size_bytes))
        if state.num_bytes >= state.size_bytes:
            self.close()

    def _begin(self, state: ReadProgress) -> None:
        self.close()
        self._name = state.name
        self._progress = Progress(
            TextColumn("reading {task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(state.name, total=state.size_bytes)
        self._progress.start()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


@contextmanager
def reading_shown_on(console: Console) -> Iterator[None]:
    """Show large files being read while the block runs, if `console` is a terminal; else readers log."""
    if not console.is_terminal:
        yield
        return
    bar = ReadingBar(console)
    try:
        with watch_reading(bar):
            yield
    finally:
        bar.close()
