"""The sizes of a model's pictures: all that planning and reading traces need to know of a model."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """A picture of `image_size` x `image_size` pixels is `rows` x `columns` tokens, row by row."""

    image_size: int
    rows: int
    columns: int
    num_codes: int  # a token is a code from 0 to num_codes - 1

    @property
    def num_tokens(self) -> int:
        return self.rows * self.columns
