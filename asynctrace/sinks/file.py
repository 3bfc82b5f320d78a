"""A directory of files: a folder a run, with text for people and JSON lines for programs.

<directory>/
├── run_id=<escaped id>/
│   ├── stdout.txt        log records below level error, in the text format
│   ├── stderr.txt        log records from level error upwards
│   ├── metadata.jsonl    every log record, all of it
│   └── events.jsonl      starts and ends of runs and spans
└── marks.jsonl           what became of each range of numbers; for ``verify``

A file of a run that was rotated stands beside it as ``stdout.000001.txt``; ``marks.jsonl`` is never
rotated, but retention merges what it says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from os import PathLike

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.decoding import RecordDecoder, mark_line
from asynctrace.core.encoding import json_lines_with_ends
from asynctrace.core.level import Level
from asynctrace.core.numbers import Numbers, in_ranges
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Kind, Record
from asynctrace.core.slice import Slice
from asynctrace.core.summary import RunSummary
from asynctrace.errors import StoreError
from asynctrace.sinks._append_sink import AppendSink, Durability, Parts
from asynctrace.sinks._directory_lock import DirectoryLock
from asynctrace.sinks._files import AppendFiles, most_open_files
from asynctrace.sinks._folders import PREFIX, folder_of
from asynctrace.sinks._line_reader import LineReader, size_of
from asynctrace.sinks._lines import Lines
from asynctrace.sinks._marks import merged, pruned_marks
from asynctrace.sinks._paths import checked_path
from asynctrace.sinks._replacement import replacing
from asynctrace.sinks._rotation import Compression, Rotation
from asynctrace.sinks._select import RunScan, in_order, newest_first
from asynctrace.sinks._template import Template

FORMAT = "{datetime} ({process:5d}, {thread:5d}) {message}"
"""The text format string when none is given."""

STDOUT, STDERR, METADATA, EVENTS, MARKS = (
    "stdout.txt",
    "stderr.txt",
    "metadata.jsonl",
    "events.jsonl",
    "marks.jsonl",
)
_ERROR = int(Level.ERROR)
_CACHED_FOLDERS = 10_000  # names of runs that may be alive at once
_MANY_MARKS = 1 << 18  # bytes from which it pays to merge them
_LOCK_TIMEOUT = 10.0  # seconds that prune tries to get the directory for itself


class FileSink(AppendSink):
    """Adds records to a folder for each run; several processes may share the directory.

    Stored at least once: the same batch right again adds nothing, and after a failure only what is missing;
    a batch that comes again after others adds its lines a second time. :class:`FileReader` drops such
    doubles by ``(producer, seq)``; the text files keep them.

    Args:
        path: the directory; made when it is missing.
        format: the text format string, over the keys of ``Record.to_dict``. Every line but the first of a
            record (long messages, tracebacks) stands behind a margin; control characters are escaped.
        max_open_files: descriptors that stay open; the least recently used one is closed for another. None: a
            quarter of what the system allows the process, at most 1,024.
        durability: ``"process"``: lines survive the death of the process; ``"disk"``: a loss of power too.
        rotate_bytes: size that a file of a run may have before it makes way for a new one (``stdout.txt`` becomes
            ``stdout.000001.txt``); None: any. A batch is never split, so it may grow larger by one batch.
        rotate_every: seconds; a file last written in an earlier such interval makes way. They are counted from 1970,
            UTC: 86400 rotates at midnight. None: never.
        keep: rotated files of each name that stay; older ones are deleted, and marks tell what they held. None: all.
        compress: what becomes of rotated files: ``"none"`` or ``"gzip"``.

    Raises:
        ConfigurationError: the format names an unknown key, or an argument is out of range.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        format: str = FORMAT,
        max_open_files: int | None = None,
        durability: Durability = "process",
        rotate_bytes: int | None = None,
        rotate_every: float | None = None,
        keep: int | None = None,
        compress: Compression = "none",
    ) -> None:
        self._template = Template(format)
        self._path = checked_path(path)
        self._folders: dict[str, _Folder] = {}
        super().__init__(
            self._path,
            max_open_files=most_open_files() if max_open_files is None else max_open_files,
            durability=durability,
            rotation=Rotation(rotate_bytes, rotate_every, keep, compress, exempt=MARKS),
        )

    def __repr__(self) -> str:
        return f"FileSink({self._path!r})"

    def _collect(self, records: Sequence[Record], parts: Parts) -> None:
        lines = json_lines_with_ends(records)
        if isinstance(records, Slice) and not records.is_made and not records.special:
            raws, folders = records.raws, self._folders
            for raw, line, text in zip(raws, lines, self._template.fill_slice(records), strict=True):
                run_id = raw.run.run.run_id
                folder = folders.get(run_id) or self._folder(run_id)
                parts[folder.stderr if raw.level >= _ERROR else folder.stdout].append(text)
                parts[folder.metadata].append(line)
            return
        fill = self._template.fill
        for record, line in zip(records, lines, strict=True):
            folder = self._folder(record.context.run.run_id)
            if record.kind is Kind.LOG:
                text = fill(record).encode()
                parts[folder.stderr if record.level >= _ERROR else folder.stdout].append(text)
                parts[folder.metadata].append(line)
            else:
                parts[folder.events].append(line)

    def _folder(self, run_id: str) -> _Folder:
        folder = self._folders.get(run_id)
        if folder is None:
            if len(self._folders) >= _CACHED_FOLDERS:
                self._folders.clear()
            folder = self._folders[run_id] = _Folder(os.path.join(self._path, folder_of(run_id)))
        return folder

    def _collect_marks(self, batch: Batch, parts: Parts) -> None:
        if batch.marks:
            parts[os.path.join(self._path, MARKS)] = [mark_line(mark) + b"\n" for mark in batch.marks]

    def _explain(self, path: str, marks: Sequence[Mark]) -> None:
        files = self._new_files()
        try:
            lines = b"".join(mark_line(mark) + b"\n" for mark in marks)
            files.append({os.path.join(self._path, MARKS): lines}, {})
        finally:
            files.close()


class _Folder:
    """Where the records of one run go."""

    __slots__ = ("events", "metadata", "stderr", "stdout")

    def __init__(self, path: str) -> None:
        self.stdout = f"{path}/{STDOUT}"
        self.stderr = f"{path}/{STDERR}"
        self.metadata = f"{path}/{METADATA}"
        self.events = f"{path}/{EVENTS}"


class FileReader(LineReader):
    """Reads what :class:`FileSink` wrote; torn lines are skipped and told as problems of their run.

    Args:
        path: the directory.
    """

    def _runs(self, query: Query) -> Iterator[RunSummary]:
        decoder = RecordDecoder()
        if query.limit is None:
            found = (self._scan(folder, query, decoder) for folder in self._folders())
            yield from newest_first(filter(None, found), query)
            return
        # The last lines tell which folders are the newest, and only those are read.
        ends = ((self._end(folder, decoder), folder) for folder in self._folders())
        latest: list[RunSummary] = []
        for end, folder in sorted(ends, reverse=True):
            if end and len(latest) >= query.limit:
                continue  # one without a record that can be read is looked at all the same, to say so
            if (summary := self._scan(folder, query, decoder)) is not None:
                latest.append(summary)
        yield from newest_first(latest, query)

    def _records(self, run_id: str, query: Query) -> Iterator[Record]:
        self._check()
        lines = self._lines(folder_of(run_id), RecordDecoder())
        yield from in_order(
            (record for part in lines for record in part.records() if record.run_id == run_id), query
        )

    def _find(self, run_id: str) -> RunSummary | None:
        self._check()
        found = self._scan(folder_of(run_id), EVERYTHING, RecordDecoder())
        return found if found is not None and found.run_id == run_id else None

    def _marks(self) -> Iterator[Mark]:
        self._check()
        lines = Lines(os.path.join(self._path, MARKS))
        yield from lines.marks()
        self._note(lines.problems())

    def _numbers(self) -> Iterator[Numbers]:
        decoder = RecordDecoder()
        for folder in self._folders():
            for part in self._lines(folder, decoder):
                yield from in_ranges(part.keys())

    def _check(self) -> None:
        if not os.path.isdir(self._path):
            raise StoreError(f"{self._path}: there is no such directory of runs")

    def _folders(self) -> list[str]:
        self._check()
        try:
            with os.scandir(self._path) as entries:
                return [
                    e.name for e in entries if e.name.startswith(PREFIX) and e.is_dir(follow_symlinks=False)
                ]
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error

    def _lines(self, folder: str, decoder: RecordDecoder) -> tuple[Lines, Lines]:
        path = os.path.join(self._path, folder)
        return Lines(f"{path}/{EVENTS}", decoder), Lines(f"{path}/{METADATA}", decoder)

    def _end(self, folder: str, decoder: RecordDecoder) -> int:
        lasts = (part.last() for part in self._lines(folder, decoder))
        return max((last.time_ns for last in lasts if last is not None), default=0)

    def _scan(self, folder: str, query: Query, decoder: RecordDecoder) -> RunSummary | None:
        scan = RunScan(query)
        lines = self._lines(folder, decoder)
        for part in lines:
            for record in part.records():
                scan.add(record)
        problems = [problem for part in lines for problem in part.problems()]
        if scan.admitted:
            return scan.summary(problems)
        if scan.is_empty:
            self._note(f"{folder}: {problem}" for problem in problems)
        return None

    def _used_bytes(self) -> int:
        self._check()
        folders = [os.path.join(self._path, folder) for folder in self._folders()]
        return sum(size_of(entry.path) for folder in folders for entry in os.scandir(folder))

    def _prune(self, older_than_ns: int) -> int:
        states = {folder: self._state_of(folder) for folder in self._folders()}
        old = {folder: keys for folder in states if (keys := self._keys_before(folder, older_than_ns))}
        gone: set[tuple[str, int]] = set()
        with closing(DirectoryLock(self._path)) as lock:
            try:
                for folder, known in old.items():
                    # Writers look at their files again after each wait for the lock, and make them anew.
                    with lock.exclusive(_LOCK_TIMEOUT):
                        same = self._state_of(folder) == states[folder]
                        keys = known if same else self._keys_before(folder, older_than_ns)
                        if keys:
                            shutil.rmtree(os.path.join(self._path, folder))
                            gone |= keys
            finally:
                self._tell_pruned(gone)
            self._merge_marks(lock)
        return len(gone)

    def _merge_marks(self, lock: DirectoryLock) -> None:
        """They outlive what they tell of: without this they would grow for ever."""
        path = os.path.join(self._path, MARKS)
        if size_of(path) < _MANY_MARKS:
            return
        with lock.exclusive(_LOCK_TIMEOUT):
            before = list(Lines(path).marks())
            after = list(merged(before))
            if len(after) > len(before) // 2:
                return
            with replacing(path, like=os.stat(path)) as file:
                file.writelines(mark_line(mark) + b"\n" for mark in after)

    def _state_of(self, folder: str) -> object:
        with os.scandir(os.path.join(self._path, folder)) as entries:
            status = {entry.name: entry.stat() for entry in entries}
        return {name: (each.st_ino, each.st_size, each.st_mtime_ns) for name, each in status.items()}

    def _keys_before(self, folder: str, older_than_ns: int) -> set[tuple[str, int]]:
        keys: set[tuple[str, int]] = set()
        for part in self._lines(folder, RecordDecoder()):
            for record in part.records():
                if record.time_ns >= older_than_ns:
                    return set()
                keys.add((record.producer, record.seq))
        return keys

    def _tell_pruned(self, gone: set[tuple[str, int]]) -> None:
        files = AppendFiles(self._path, max_open=1, sync=False)
        try:
            lines = b"".join(mark_line(mark) + b"\n" for mark in pruned_marks(gone))
            files.append({os.path.join(self._path, MARKS): lines}, {})
        finally:
            files.close()
