"""Errors that a user can act on.

Every error that the pipeline raises on purpose derives from `PipelineError`; its message is one line
that names the field, the file or the row. Only the edge (`jobs/`) prints it and sets the exit code.
"""


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


class GenerationError(PipelineError):
    """Generation ended incomplete; what was finished is kept and a rerun resumes."""

    exit_code = 1
