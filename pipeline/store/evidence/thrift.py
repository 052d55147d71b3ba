"""Structs of Thrift's compact protocol, which Parquet's footers and page indexes are written in.

pyarrow's own accessors end the process on some footers that are damaged: an exception of C++ that
nothing catches. Field numbers are those of parquet.thrift, of apache/parquet-format 2.11.
"""

from struct import unpack_from
from typing import TypeAlias

Value: TypeAlias = "int | float | bytes | list[Value] | Struct"
Struct: TypeAlias = dict[int, Value]
"""Fields by their numbers."""

_MAX_DEPTH = 32  # Parquet's own structs have eight
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_WHOLE_NUMBERS = (4, 5, 6)  # of 16, 32 and 64 bits


def read_struct(data: bytes) -> Struct:
    """The struct at the start of these bytes. Raises ValueError for what is none."""
    try:
        return _Reader(data).struct(_MAX_DEPTH)
    except (IndexError, OverflowError) as error:
        raise ValueError(f"a struct that ends early or is none: {error}") from error


def struct_of(fields: Struct, number: int) -> Struct:
    """A field that is a struct; an empty one, if it is not there. Raises ValueError."""
    value = fields.get(number, {})
    if isinstance(value, dict):
        return value
    raise ValueError(f"field {number} is no struct")


def structs_of(fields: Struct, number: int) -> list[Struct]:
    """A field that is a list of structs; as `struct_of`."""
    return [struct_of({0: value}, 0) for value in list_of(fields, number)]


def list_of(fields: Struct, number: int) -> list[Value]:
    """A field that is a list; as `struct_of`."""
    value = fields.get(number, [])
    if isinstance(value, list):
        return value
    raise ValueError(f"field {number} is no list")


def int_of(fields: Struct, number: int) -> int:
    """A field that is a whole number; 0, if it is not there. Raises ValueError."""
    value = fields.get(number, 0)
    if isinstance(value, int):
        return value
    raise ValueError(f"field {number} is no whole number")


class _Reader:
    """Goes through bytes. Raises IndexError at their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> Struct:
        fields: Struct = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._zigzag()
            kind = header & 15
            fields[number] = int(kind == _TRUE) if kind <= _FALSE else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Value:
        if depth == 0:
            raise ValueError("structs within structs without end")
        if kind in _WHOLE_NUMBERS:
            return self._zigzag()
        if kind in (_TRUE, _FALSE):  # of a list; of a struct, its header has said it
            return int(self._byte() == _TRUE)
        if kind == _BYTE:
            return self._byte()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _DOUBLE:
            (number,) = unpack_from("<d", self._bytes(8))
            return float(number)
        if kind in (_LIST, _SET):
            header = self._byte()
            size = header >> 4 if header >> 4 < 15 else self._varint()
            if size > len(self._data):
                raise IndexError(f"a list of {size}")
            return [self._value(header & 15, depth - 1) for _ in range(size)]
        if kind == _STRUCT:
            return self.struct(depth - 1)
        raise ValueError(f"a field of type {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise IndexError(f"{length} bytes")
        return self._data[self._at - length : self._at]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
