"""The contract of sinks, on SQLite."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from disk_kit import files_up_to
from store_kit import all_records

from asynctrace.core.record import Record
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import SinkContract, make_record


class TestSQLite(SinkContract):
    def outage(self) -> AbstractContextManager[None]:
        return files_up_to(100)

    def make_sink(self) -> SQLiteSink:
        return SQLiteSink(self.place / "traces.db")

    def make_refused_sink(self) -> SQLiteSink:
        (self.place / "no.db").write_text("this is no database, and long enough to be seen as none. " * 20)
        return SQLiteSink(self.place / "no.db")

    def poison(self) -> Record:
        return make_record(1, "\ud800")  # no codec lets it through; SQLite cannot bind it

    async def read_back(self) -> Sequence[Record]:
        return await all_records(SQLiteReader(self.place / "traces.db"))
