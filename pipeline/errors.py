"""Errors that a user can act on.

Every error that the pipeline raises on purpose derives from `PipelineError`; its message is one line
that names the field, the file or the row. Only the edge (`jobs/`) prints it and sets the exit code.
"""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, largest size of a file


class PipelineError(Exception):
    """A run that cannot go on, for a reason that one line explains."""

    exit_code = 2


class ConfigError(PipelineError):
    """A configuration key or value is wrong. Raised before anything is written."""


class DataError(PipelineError):
    """Input data is missing, unreadable, or has too many bad rows."""


class CorruptPartError(PipelineError):
    """A file on disk contradicts its manifest."""


class ModelError(PipelineError):
    """The model cannot be found, read, or served."""


class BusyError(PipelineError):
    """Another process works on the same data; the message names it."""


class PublishError(PipelineError):
    """A snapshot that must not be put in force. The one in force is untouched, everything is kept."""

    exit_code = 1


class StorageError(PipelineError):
    """Results cannot be kept, for example because the disk is full; what was finished is kept."""

    exit_code = 1


class UploadError(StorageError):
    """A file could not be sent to an object store from this machine; another try, or machine, may do it."""


class QualityError(PipelineError):
    """Relaxed texts are further from strict ones than the quality gate allows."""

    exit_code = 1


class ReportError(PipelineError):
    """A report that is written, but could not be delivered."""

    exit_code = 1


class GenerationError(PipelineError):
    """Generation ended incomplete; what was finished is kept and a rerun resumes."""

    exit_code = 1


class MachineError(PipelineError):
    """A machine or cluster cannot do it now: no memory, no answer, a process that died. Later it may."""

    exit_code = 1


class Terminated(KeyboardInterrupt):
    """SIGTERM: the job ends in order.

    Of this class because nothing takes it for a fault to mend, and because asyncio, which swallows other
    exceptions of its callbacks, lets it through.
    """

    exit_code = 143

    def __init__(self) -> None:
        super().__init__("ended by SIGTERM")
