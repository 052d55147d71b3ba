"""The typed rows say what the Arrow schemas say: the same names, kinds and nullability."""

import types
import typing
from datetime import datetime

import pyarrow as pa
import pytest

from schemas import rows, scores, tables, training

PYTHON_TYPES = {
    pa.types.is_string: str,
    pa.types.is_binary: bytes,
    pa.types.is_boolean: bool,
    pa.types.is_integer: int,
    pa.types.is_floating: float,
    pa.types.is_timestamp: datetime,
}

PAIRS = [
    (rows.PlanTableRow, tables.PLAN),
    (rows.TraceRow, tables.TRACES),
    (rows.ScoreKeyRow, scores.scores_schema({})),
    (rows.TextRow, training.TEXT),
    (rows.DrawRow, training.DRAW),
    (rows.PreferenceRow, training.PREFERENCE),
    (rows.GroupRow, training.GROUP),
    (rows.DecisionRow, training.DECISIONS),
]


def without_none(hint: object) -> object:
    if isinstance(hint, types.UnionType):
        (inner,) = [part for part in typing.get_args(hint) if part is not type(None)]
        return inner
    return hint


def differences(hint: object, column: pa.DataType, name: str) -> list[str]:
    """Where a Python type does not say what an Arrow type says."""
    hint = without_none(hint)
    if pa.types.is_dictionary(column):
        column = column.value_type
    if pa.types.is_list(column):
        if typing.get_origin(hint) is not list:
            return [f"{name}: {hint} is no list"]
        return differences(typing.get_args(hint)[0], column.value_type, f"{name}[]")
    if pa.types.is_struct(column):
        return fields_that_differ(hint, list(column), name)
    (expected,) = [kind for is_of, kind in PYTHON_TYPES.items() if is_of(column)]
    return [] if hint is expected else [f"{name}: {hint} is not {expected}"]


def fields_that_differ(row: object, fields: list[pa.Field], name: str) -> list[str]:
    hints = typing.get_type_hints(row)
    named = {field.name: field for field in fields}
    wrong = [f"{name}.{field}" for field in hints.keys() ^ named.keys()]
    for field in hints.keys() & named.keys():
        wrong += differences(hints[field], named[field].type, f"{name}.{field}")
        if not named[field].nullable and hints[field] != without_none(hints[field]):
            wrong.append(f"{name}.{field} is never null")
    return wrong


@pytest.mark.parametrize(("row", "schema"), PAIRS, ids=[row.__name__ for row, _ in PAIRS])
def test_a_typed_row_has_the_columns_of_its_schema(row: type, schema: pa.Schema):
    assert fields_that_differ(row, list(schema), row.__name__) == []


def test_a_row_that_lacks_a_column_or_has_it_in_another_kind_is_found():
    schema = pa.schema([("role", pa.string()), ("content", pa.int32()), ("more", pa.string())])

    found = fields_that_differ(rows.Message, list(schema), "Message")

    assert found == ["Message.more", "Message.content: <class 'str'> is not <class 'int'>"]
