"""A slice as columns of values, of what it is made of: C code puts the rows together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from asynctrace.core.codec import to_json_lines
from asynctrace.core.context import span_of
from asynctrace.core.level import LABELS
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import RawRecord
from asynctrace.core.run import COLUMN_FIELDS, RunContext
from asynctrace.core.slice import Slice, parent_of
from asynctrace.sinks._sqlite_rows import HandlePart, span_texts

Column = Sequence[object]
Columns = dict[str, Column]
"""name → the values of one record after the other; a column that is not there is NULL throughout."""

_HANDLE = ("run_id", "cut_id", "trace_id", "attempt", "parent_run_id", "run_name", *COLUMN_FIELDS)
_PLACE = ("filename", "lineno", "span_id", "parent_span_id")


def columns_of(
    part: Slice, places: Sequence[int], handle_part: Callable[[RunContext], HandlePart]
) -> tuple[ProcessInfo, Columns] | None:
    """The columns of the records at these places.

    Args:
        part: the slice.
        places: ascending; at least one; none of a record that is special.
        handle_part: what all records of one handle have in common.

    Returns:
        their process and the columns; None where that takes a closer look.
    """
    raws, fields, datetimes = part.raws, part.fields, part.datetimes
    if part.is_made or not part.is_simple:
        return None
    handles = {context: handle_part(context) for context in part.contexts}
    process = next(iter(handles)).run.process
    if any(context.run.process is not process for context in handles):
        return None
    numbers: Sequence[int] = range(part.first, part.first + len(part))
    if len(places) < len(part):
        raws, fields = [raws[place] for place in places], [fields[place] for place in places]
        datetimes, numbers = [datetimes[place] for place in places], [numbers[place] for place in places]
    count = len(places)
    columns: Columns = {
        "seq": numbers,
        "datetime": datetimes,
        "message": [raw.message for raw in raws],
        "thread": [raw.thread for raw in raws],
        "level": [LABELS[raw.level] for raw in raws],
    }
    if part.usage is not None:
        columns["memory_usage_mb"] = [part.usage.memory_mb] * count
        columns["cpu_usage_percent"] = [part.usage.cpu_percent] * count
    _add(columns, ("metadata",), (_metadata(raws, fields, handles),))
    _add(columns, _PLACE, zip(*_places(part, raws, handles), strict=True))
    if len(handles) == 1:
        (handle,) = handles.values()
        _add(columns, _HANDLE, ([value] * count for value in handle.values))
    else:
        _add(columns, _HANDLE, zip(*[handles[raw.run].values for raw in raws], strict=True))
    return process, columns


def _add(columns: Columns, names: Sequence[str], values: Iterator[Column] | Sequence[Column]) -> None:
    columns.update((name, column) for name, column in zip(names, values, strict=True) if _is_filled(column))


def _is_filled(column: Column) -> bool:
    return any(column) or column.count(None) < len(column)  # any() alone takes "" for nothing


def _metadata(
    raws: Sequence[RawRecord], fields: Sequence[dict[str, Any]], handles: dict[RunContext, HandlePart]
) -> Column:
    texts: list[str] = to_json_lines(fields).decode().split("\n")[:-1]
    if any(handle.metadata for handle in handles.values()):
        return [_joined(handles[raw.run].metadata, text) for raw, text in zip(raws, texts, strict=True)]
    return texts if all(fields) else [None if text == "{}" else text for text in texts]


def _joined(bound: str | None, own: str) -> str | None:
    """One JSON object of two without a common name."""
    if bound is None or own == "{}":
        return bound if own == "{}" else own
    return f"{bound[:-1]},{own[1:]}"


def _places(
    part: Slice, raws: Sequence[RawRecord], handles: dict[RunContext, HandlePart]
) -> list[tuple[str, int, str | None, str | None]]:
    """File, line, span and parent span of each record; neighbours share most of it."""
    resolve = part.sites.resolve
    code = run = span = None
    lasti = -1
    places = []
    for raw in raws:
        if raw.lasti != lasti or raw.span is not span or raw.run is not run or raw.code is not code:
            code, lasti, span, run = raw.code, raw.lasti, raw.span, raw.run
            site, own = resolve(code, lasti), span_of(run.run, span)
            ids = handles[run].root if own is None else span_texts(own.span_id, parent_of(own))
            place = (site.filename, site.lineno, *ids)
        places.append(place)
    return places
