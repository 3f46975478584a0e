"""Finished texts join the pools beside the steps of decoding, not between them."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from drafters.datastore import Document

logger = logging.getLogger(__name__)
Teach = Callable[[str, Sequence[Document]], None]


class Teacher:
    """Gives texts to `teach`, in the order in which they came, in a thread of its own.

    Indexing a text takes about two microseconds a token, and a merge of a grown pool tens of milliseconds at
    once; the sorting in it runs without the interpreter's lock.
    """

    def __init__(self, teach: Teach) -> None:
        self._teach = teach
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="teach")

    def add(self, kind: str, documents: Sequence[Document]) -> None:
        """Return at once; the texts draft for requests of `kind` as soon as they are indexed."""
        self._thread.submit(self._add, kind, documents)

    def wait(self) -> None:
        """Return when all that was added is indexed."""
        self._thread.submit(lambda: None).result()

    def _add(self, kind: str, documents: Sequence[Document]) -> None:
        try:
            self._teach(kind, documents)
        except Exception:  # the pools stay as they are; a text that is not learned must not end a run
            logger.exception("%d texts of kind %s could not be learned", len(documents), kind)
