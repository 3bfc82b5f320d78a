"""The contract of sinks, on a directory and on a file of JSON lines."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from disk_kit import files_up_to
from store_kit import all_records

from asynctrace.core.record import Record
from asynctrace.sinks.file import FileReader, FileSink
from asynctrace.sinks.jsonl import JsonLinesReader, JsonLinesSink
from asynctrace.testing import SinkContract


class TestDirectory(SinkContract):
    no_poison = "a file takes every line"

    def outage(self) -> AbstractContextManager[None]:
        return files_up_to(100)

    def make_sink(self) -> FileSink:
        return FileSink(self.place / "logs")

    def make_refused_sink(self) -> FileSink:
        (self.place / "file").touch()
        return FileSink(self.place / "file" / "logs")

    async def read_back(self) -> Sequence[Record]:
        return await all_records(FileReader(self.place / "logs"))


class TestJsonLines(SinkContract):
    no_poison = "a file takes every line"

    def outage(self) -> AbstractContextManager[None]:
        return files_up_to(100)

    def make_sink(self) -> JsonLinesSink:
        return JsonLinesSink(self.place / "logs" / "traces.jsonl")

    def make_refused_sink(self) -> JsonLinesSink:
        (self.place / "folder.jsonl").mkdir()
        return JsonLinesSink(self.place / "folder.jsonl")

    async def read_back(self) -> Sequence[Record]:
        return await all_records(JsonLinesReader(self.place / "logs" / "traces.jsonl"))
