"""A run as a tree: its attempts, their spans, and the records inside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asynctrace
from asynctrace.cli import screen
from asynctrace.cli.documents import own_fields
from asynctrace.cli.record_line import append_exception, record_text
from asynctrace.cli.words import count, duration, fields_text, moment, offset, one_line

if TYPE_CHECKING:
    from asynctrace import Record, RunSummary, SpanNode, StoredRun

_DEEPEST = 40
"""Levels that are shown by indentation; what is deeper stands at this one and says how deep it is."""


@dataclass(frozen=True, slots=True)
class View:
    """What of a run is shown.

    Args:
        level: the lowest level of records.
        records: whether records are shown at all.
        stacks: whether stack traces are.
        limit: how many unremarkable children of one span are shown; 0 for all. Warnings, errors and what
            holds them are always shown.
    """

    level: int = 0
    records: bool = True
    stacks: bool = False
    limit: int = 100


def draw(run: StoredRun, children: Iterable[RunSummary], view: View) -> list[screen.Text | screen.Tree]:
    """The run from its head line to its child runs, to be printed below each other."""
    parts: list[screen.Text | screen.Tree] = [head(run.summary)]
    roots = run.attempts()
    for number, root in enumerate(roots, 1):
        parts.append(_attempt(root, number if len(roots) > 1 else None, view))
    child_runs = [_child(child) for child in children]
    if child_runs:
        parts += [screen.Text("\nchild runs", "bold"), *child_runs]
    for problem in run.summary.problems:
        parts.append(screen.Text(f"\nnot all could be read: {one_line(problem)}", "bold yellow"))
    return parts


def head(summary: RunSummary) -> screen.Text:
    """The run in two lines."""
    text = screen.Text("run ", "dim")
    text.append(one_line(summary.run_id), "bold")
    if summary.name:
        text.append(f"  {one_line(summary.name)}", "bold cyan")
    text.append("  ")
    text.append_text(screen.status_text(summary.status.label))
    if summary.duration_ms is not None:
        text.append(f"  {duration(summary.duration_ms)}")
    text.append(f"  {moment(summary.started_ns)}", "dim")
    if summary.parent_run_id:
        text.append(f"\nparent {one_line(summary.parent_run_id)}", "dim")
    text.append(f"\n{count(summary.spans, 'span')}, {count(summary.records, 'record')}", "dim")
    text.append(f", {count(summary.warnings, 'warning')}", "yellow" if summary.warnings else "dim")
    text.append(f", {count(summary.errors, 'error')}", "bold red" if summary.errors else "dim")
    if summary.attempts > 1:
        text.append(f", {count(summary.attempts, 'attempt')}", "magenta")
    return text.append("\n")


def _child(child: RunSummary) -> screen.Text:
    text = screen.Text(f"  {one_line(child.run_id)}  {one_line(child.name or '')}  ")
    text.append_text(screen.status_text(child.status.label))
    return text.append(f"  {duration(child.duration_ms)}")


def _attempt(root: SpanNode, number: int | None, view: View) -> screen.Tree:
    drawing = _Drawing(root, view)
    label = screen.Text(f"attempt {number}  " if number else "", "magenta")
    tree = screen.Tree(label.append_text(drawing.span_text(root, 0)), guide_style="dim")
    waiting = [(root, tree, 1)]
    while waiting:  # a loop: spans nest deeper than Python's stack allows
        node, branch, depth = waiting.pop()
        for item in drawing.children(node):
            if isinstance(item, screen.Text):
                branch.add(item)
            elif isinstance(item, asynctrace.Record):
                branch.add(drawing.record_text(item))
            else:
                below = branch.add(drawing.span_text(item, depth))
                waiting.append((item, below if depth <= _DEEPEST else branch, depth + 1))
    return tree


class _Drawing:
    """What all lines of one attempt have in common."""

    def __init__(self, root: SpanNode, view: View) -> None:
        self._view = view
        self._start_ns = _began(root)
        self._remarkable = _remarkable(root, view)
        self._bound: dict[str, Any] = {}
        if root.start is not None and root.start.kind is asynctrace.Kind.RUN_START:
            self._bound = own_fields(root.start)

    def children(self, node: SpanNode) -> Iterator[SpanNode | Record | screen.Text]:
        """Records and spans in the order of time, without the many that say nothing new."""
        view = self._view
        records = [record for record in node.records if record.level >= view.level] if view.records else []
        items: list[tuple[int, SpanNode | Record]] = [(record.time_ns, record) for record in records]
        items += [(_began(child), child) for child in node.children]
        items.sort(key=lambda item: item[0])
        plain = folded_records = folded_spans = 0
        for _, item in items:
            is_record = isinstance(item, asynctrace.Record)
            if self._is_remarkable(item):
                yield item
                continue
            plain += 1
            if not view.limit or plain <= view.limit:
                yield item
            elif is_record:
                folded_records += 1
            else:
                folded_spans += 1
        folded = [
            count(number, noun)
            for number, noun in ((folded_spans, "span"), (folded_records, "record"))
            if number
        ]
        if folded:
            yield screen.Text(f"… {' and '.join(folded)} more, all well (--limit 0 shows them)", "dim italic")

    def _is_remarkable(self, item: SpanNode | Record) -> bool:
        if isinstance(item, asynctrace.Record):
            return _stands_out(item)
        return item.span_id in self._remarkable

    def record_text(self, record: Record) -> screen.Text:
        """One log record."""
        return record_text(
            record,
            when=offset(record.time_ns, self._start_ns),
            fields=self._own(record.fields),
            stacks=self._view.stacks,
        )

    def span_text(self, node: SpanNode, depth: int) -> screen.Text:
        """One span, or the run itself at depth 0."""
        status = node.status.label
        style = screen.STATUS_STYLES.get(status, "")
        text = screen.Text("✖ " if status == "error" else "● ", style)
        if depth > _DEEPEST:
            text.append(f"(depth {depth}) ", "dim")
        text.append(one_line(node.name), "bold red" if status == "error" else "bold")
        if node.duration_ms is not None:
            text.append(f"  {duration(node.duration_ms)}", "magenta")
        if status != "ok":
            text.append(f"  {status}", style)
        if depth:
            text.append(f"  {offset(_began(node), self._start_ns)}", "dim")
        fields = self._own(node.start.fields) if depth and node.start is not None else self._bound
        if fields:
            text.append("  " + fields_text(fields), "cyan")
        if node.end is not None and not _comes_from_inside(node):
            append_exception(text, node.end, stacks=self._view.stacks)
        return text

    def _own(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        # What the whole run carries is told once, at its root.
        bound = self._bound
        return {name: value for name, value in fields.items() if name not in bound or bound[name] != value}


def _comes_from_inside(node: SpanNode) -> bool:
    """Whether a span inside this one has told the exception that ended it."""
    error = node.end.exception if node.end is not None else None
    return error is not None and any(
        child.end is not None
        and child.end.exception is not None
        and (child.end.exception.type, child.end.exception.message) == (error.type, error.message)
        for child in node.children
    )


def _remarkable(root: SpanNode, view: View) -> set[int]:
    """The spans that did not end well, or hold a warning or an error, at any depth."""
    order: list[SpanNode] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += node.children
    found: set[int] = set()
    for node in reversed(order):  # children before their parents
        if (
            node.status is not asynctrace.Status.OK
            or any(child.span_id in found for child in node.children)
            or (view.records and any(map(_stands_out, node.records)))
        ):
            found.add(node.span_id)
    return found


def _stands_out(record: Record) -> bool:
    return record.level >= asynctrace.Level.WARNING


def _began(node: SpanNode) -> int:
    """When the span began, as far as is known."""
    known = [record.time_ns for record in (node.start, *node.records[:1], node.end) if record is not None]
    return min(known, default=min((_first(child) for child in node.children), default=0))


def _first(node: SpanNode) -> int:
    return node.start.time_ns if node.start is not None else 0
