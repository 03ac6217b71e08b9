"""Parquet tables of frames, cells and differentials. Their columns are the fields of the records themselves: a frame as
it was published, a cell and a differential as they are counted now; what was not measured is null."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import msgspec.inspect
import pyarrow as pa
import pyarrow.parquet as pq

from streamer.interop.sessions import ExportedSession
from streamer.journal import decoded
from streamer.protocol.factory import attribute_messages
from streamer.protocol.messages import FrameMessage
from streamer.records import Cell, Differential

ROWS_AT_ONCE = 1000
"""Of a row group: a frame has some hundred boxes, all of which are Python objects until it is written."""

Row = dict[str, Any]


def files(sessions: Sequence[ExportedSession], recording: str | None = None) -> Iterator[tuple[str, bytes]]:
    """Name and content of `frames.parquet`, `cells.parquet` and `differential.parquet`. JournalError for what can't be
    read."""
    for name, (record, rows_of) in _TABLES.items():
        yield f"{name}.parquet", _written(schema_of(record), itertools.chain.from_iterable(map(rows_of, sessions)))


def schema_of(record: type) -> pa.Schema:
    """Columns of a struct or dataclass, `session` and `source` first where it has none of its own."""
    fields = {field.name: field for field in _arrow(msgspec.inspect.type_info(record))}
    own = [pa.field(name, pa.string()) for name in ("session", "source") if name not in fields]
    return pa.schema([*own, *fields.values()])


def _written(schema: pa.Schema, rows: Iterable[Row]) -> bytes:
    rows = iter(rows)
    out = pa.BufferOutputStream()
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return bytes(out.getvalue())


def _frames(one: ExportedSession) -> Iterator[Row]:
    for header in one.stored.frame_messages():
        message = decoded(one.stored, header)
        if isinstance(message, FrameMessage):
            file = None if one.pseudonymised else message.file
            row: Row = msgspec.to_builtins(message)
            yield {**row, "session": one.id, "source": one.source, "file": file}


def _cells(one: ExportedSession) -> Iterator[Row]:
    for cell in one.cells():
        row = {**asdict(cell), "attributes": attribute_messages(cell.attributes), "shape": cell.shape}
        yield {"session": one.id, "source": one.source, **msgspec.to_builtins(row)}


def _differential(one: ExportedSession) -> Iterator[Row]:
    yield {"session": one.id, "source": one.source, **msgspec.to_builtins(one.result.differential)}


_TABLES: Mapping[str, tuple[type, Callable[[ExportedSession], Iterator[Row]]]] = {
    "frames": (FrameMessage, _frames),
    "cells": (Cell, _cells),
    "differential": (Differential, _differential),
}


def _arrow(type_: msgspec.inspect.Type) -> pa.DataType:
    """The column type of a field: as it stands in JSON, with dictionaries as maps."""
    match type_:
        case msgspec.inspect.Metadata(type=inner):
            return _arrow(inner)
        case msgspec.inspect.UnionType(types=types):
            (inner,) = (one for one in types if not isinstance(one, _ABSENT))
            return _arrow(inner)
        case msgspec.inspect.StructType(fields=fields) | msgspec.inspect.DataclassType(fields=fields):
            return pa.struct([pa.field(field.encode_name, _arrow(field.type)) for field in fields])
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return pa.map_(_arrow(key), _arrow(value))
        case msgspec.inspect.TupleType(item_types=(first, *rest)):
            return pa.list_(_arrow(first), 1 + len(rest))
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            return pa.list_(_arrow(item))
    return _PLAIN[type(type_)]


_ABSENT = (msgspec.inspect.NoneType, msgspec.inspect.CustomType)
"""Members of a union that are a null in a column: None, and the mark of a field that does not apply."""

_PLAIN: Mapping[type[msgspec.inspect.Type], pa.DataType] = {
    msgspec.inspect.IntType: pa.int64(),
    msgspec.inspect.FloatType: pa.float64(),
    msgspec.inspect.StrType: pa.string(),
    msgspec.inspect.BoolType: pa.bool_(),
}

NAMES = tuple(f"{name}.parquet" for name in _TABLES)
