"""The SQLite store: the contract of sinks, the documents' statements, many processes, forks, failures."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from asynctrace.core.record import Record
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import SinkContract, make_record


@contextmanager
def no_file_grows() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestContract(SinkContract):
    outage = staticmethod(no_file_grows)

    def make_sink(self) -> SQLiteSink:
        return SQLiteSink(self.place / "logs" / "traces.db")

    def make_refused_sink(self) -> SQLiteSink:
        (self.place / "text.db").write_text("this is no database, and it is long enough to say so" * 20)
        return SQLiteSink(self.place / "text.db")

    def poison(self) -> Record:
        return make_record(1, thread=2**63)

    async def read_back(self) -> Sequence[Record]:
        reader = SQLiteReader(self.place / "logs" / "traces.db")
        runs = [run async for run in reader.runs()]
        return [record for run in reversed(runs) async for record in reader.records(run.run_id)]
