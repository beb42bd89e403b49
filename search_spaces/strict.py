"""What the models of a specification share: each is frozen and refuses unknown keys; levels, and grids of levels."""

from pydantic import BaseModel, ConfigDict

Level = bool | int | float | str
Levels = dict[str, Level]
Grid = dict[str, list[Level]]


class Strict(BaseModel):
    """A model that refuses unknown keys and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
