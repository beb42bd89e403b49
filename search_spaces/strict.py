"""What every part of a specification is: frozen, and without keys that are not known."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A model that refuses unknown keys and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
