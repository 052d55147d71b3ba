"""The base of every config table."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A config table: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
