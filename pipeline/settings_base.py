"""The base of all settings classes, in a file of its own so that every group can import it."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all groups: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
