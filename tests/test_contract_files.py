"""The contract of sinks, on a directory and on a file of JSON lines."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from asynctrace.core.record import Record
from asynctrace.sinks.file import FileReader, FileSink
from asynctrace.sinks.jsonl import JsonLinesReader, JsonLinesSink
from asynctrace.testing import SinkContract


@contextmanager
def no_file_grows() -> Iterator[None]:
    """The kernel's own limit on the size of files: writes stop short and then fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def all_records(reader: FileReader | JsonLinesReader) -> list[Record]:
    try:
        runs = [run async for run in reader.runs()]
        return [record for run in reversed(runs) async for record in reader.records(run.run_id)]
    finally:
        await reader.aclose()


class TestDirectory(SinkContract):
    no_poison = "a file takes every line"
    outage = staticmethod(no_file_grows)

    def make_sink(self) -> FileSink:
        return FileSink(self.place / "logs")

    def make_refused_sink(self) -> FileSink:
        (self.place / "file").touch()
        return FileSink(self.place / "file" / "logs")

    async def read_back(self) -> Sequence[Record]:
        return await all_records(FileReader(self.place / "logs"))


class TestJsonLines(SinkContract):
    no_poison = "a file takes every line"
    outage = staticmethod(no_file_grows)

    def make_sink(self) -> JsonLinesSink:
        return JsonLinesSink(self.place / "logs" / "traces.jsonl")

    def make_refused_sink(self) -> JsonLinesSink:
        (self.place / "folder.jsonl").mkdir()
        return JsonLinesSink(self.place / "folder.jsonl")

    async def read_back(self) -> Sequence[Record]:
        return await all_records(JsonLinesReader(self.place / "logs" / "traces.jsonl"))
