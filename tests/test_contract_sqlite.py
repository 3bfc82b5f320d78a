"""The contract of sinks, on SQLite."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from asynctrace.core.record import Record
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import SinkContract, make_record


@contextmanager
def no_file_grows() -> Iterator[None]:
    """The kernel's own limit on the size of files: SQLite sees a full disk or an input/output error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestSQLite(SinkContract):
    outage = staticmethod(no_file_grows)

    def make_sink(self) -> SQLiteSink:
        return SQLiteSink(self.place / "traces.db")

    def make_refused_sink(self) -> SQLiteSink:
        (self.place / "no.db").write_text("this is no database, and long enough to be seen as none. " * 20)
        return SQLiteSink(self.place / "no.db")

    def poison(self) -> Record:
        return make_record(1, "\ud800")  # no codec lets it through; SQLite cannot bind it

    async def read_back(self) -> Sequence[Record]:
        reader = SQLiteReader(self.place / "traces.db")
        try:
            runs = [run async for run in reader.runs()]
            return [record for run in reversed(runs) async for record in reader.records(run.run_id)]
        finally:
            await reader.aclose()
