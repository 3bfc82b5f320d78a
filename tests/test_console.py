"""The console: what people see, on a terminal and in a pipe, and what a pipe must not do to the program."""

import asyncio
import io
import os
import pty
import re
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from lane_kit import until

from asynctrace.core.batch import Batch
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import Level
from asynctrace.core.record import Kind, Record, Status
from asynctrace.errors import ConfigurationError, PermanentSinkError, SinkClosedError, TransientSinkError
from asynctrace.sinks.console import ConsoleSink
from asynctrace.testing import make_batch, make_context, make_record


def shown(*records: Record, color: str = "never") -> str:
    stream = io.StringIO()
    written(ConsoleSink(stream=stream, color=color), Batch(records))  # type: ignore[arg-type]
    return stream.getvalue()


def written(sink: ConsoleSink, batch: Batch) -> None:
    async def main() -> None:
        await sink.open()
        try:
            await sink.write(batch)
        finally:
            await sink.aclose()
            await sink.aclose()

    asyncio.run(main())


def without_time(text: str) -> str:
    return re.sub(r"^\d\d:\d\d:\d\d\.\d\d\d", "TIME", text, flags=re.MULTILINE)


class TestLines:
    def test_a_record_is_one_line(self) -> None:
        record = make_record(
            0, "loaded", fields={"rows": 120, "table": "orders", "note": "two words", "x": None}
        )
        line = shown(record)
        assert re.match(r"\d\d:\d\d:20\.000 INFO     loaded", line)
        assert re.sub(" +", " ", without_time(line)) == (
            'TIME INFO loaded rows=120 table=orders note="two words" x=null (example.py:10)\n'
        )

    def test_spans_are_indented_and_tell_their_duration(self) -> None:
        context = make_context(name="checkout")
        text = shown(
            make_record(0, "run started", context=context, kind=Kind.RUN_START, span_id=1),
            make_record(1, "load", context=context, kind=Kind.SPAN_START, span_id=2, parent_span_id=1),
            make_record(2, "inside", context=context, span_id=2),
            make_record(3, "load", context=context, kind=Kind.SPAN_END, span_id=2, status=Status.ERROR,
            duration_ms=812.0), make_record(4, "outside", context=context, span_id=1),
            make_record(5, "run ended", context=context, kind=Kind.RUN_END, span_id=1, status=Status.OK,
            duration_ms=61_500.0), make_record(6, "elsewhere", context=context, span_id=99),
        )  # fmt: skip
        assert without_time(text).splitlines() == [
            "TIME INFO     ▶ checkout run-1",
            "TIME INFO       ▶ load",
            "TIME INFO         inside  (example.py:10)",
            "TIME INFO       ■ load 812.0 ms error",
            "TIME INFO       outside  (example.py:10)",
            "TIME INFO     ■ checkout run-1 1 min 2 s ok",
            "TIME INFO     elsewhere  (example.py:10)",
        ]

    def test_a_stack_is_indented(self) -> None:
        error = ExceptionInfo("KeyError", "'x'", "Traceback:\n  here\nKeyError: 'x'\n")
        text = shown(make_record(0, "failed", level=Level.ERROR, exception=error))
        assert [line.strip() for line in text.splitlines()[1:]] == ["Traceback:", "here", "KeyError: 'x'"]
        assert all(line.startswith(" " * 14) for line in text.splitlines()[1:])

    @pytest.mark.parametrize(
        "hostile", ["\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\r", "\x00", "\x7f", "\u202e"]
    )
    def test_no_text_drives_the_terminal(self, hostile: str) -> None:
        error = ExceptionInfo(hostile, hostile, hostile)
        context = make_context(f"id{hostile}", name=hostile)
        text = shown(
            make_record(
                0, hostile, context=context, fields={hostile: hostile, "n": [hostile]}, exception=error
            ),
            make_record(1, hostile, context=context, kind=Kind.RUN_START),
        )
        assert hostile not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)

    def test_a_message_of_two_lines_cannot_pass_for_another_record(self) -> None:
        text = shown(make_record(0, "one\n00:00:00.000 INFO  forged", fields={"a\nb": "c\nd"}))
        assert re.match(r"\d\d:\d\d:\d\d", text.splitlines()[0])
        assert text.splitlines()[1].startswith(" " * 14)
        assert "a\\nb=" in text
        assert "c\\nd" in text


class TestColor:
    def test_always_and_never(self) -> None:
        assert "\x1b[31mERROR" in shown(make_record(0, level=Level.ERROR), color="always")
        assert "\x1b" not in shown(make_record(0, level=Level.ERROR), color="never")

    def test_auto_asks_the_stream(self, tmp_path: Path) -> None:
        leader, follower = pty.openpty()
        with open(follower, "w", encoding="utf-8") as terminal:
            written(ConsoleSink(stream=terminal), Batch([make_record(0, "hello")]))
            assert b"\x1b[32mINFO" in os.read(leader, 10_000)
        os.close(leader)
        with open(tmp_path / "log", "w", encoding="utf-8") as file:
            written(ConsoleSink(stream=file), Batch([make_record(0, "hello")]))
        assert "\x1b" not in (tmp_path / "log").read_text()

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="auto, always, never"):
            ConsoleSink(color="red")  # type: ignore[arg-type]


class TestStreams:
    def test_the_program_s_stderr_is_the_default(self, capfd: pytest.CaptureFixture[str]) -> None:
        written(ConsoleSink(), make_batch(300))
        out, err = capfd.readouterr()
        assert out == ""
        assert [line.split()[3] for line in err.splitlines()] == [str(n) for n in range(300)]

    def test_what_the_program_wrote_before_comes_before(self, tmp_path: Path) -> None:
        with open(tmp_path / "log", "w", encoding="utf-8") as file:
            file.write("mine\n")
            written(ConsoleSink(stream=file), make_batch(1))
        assert (tmp_path / "log").read_text().startswith("mine\n")

    def test_text_that_the_stream_cannot_encode_is_escaped(self, tmp_path: Path) -> None:
        with open(tmp_path / "log", "w", encoding="ascii") as file:
            written(ConsoleSink(stream=file), Batch([make_record(0, "世界")]))
        assert "\\u4e16\\u754c" in (tmp_path / "log").read_text()

    def test_it_writes_only_between_open_and_close(self) -> None:
        async def main() -> None:
            sink = ConsoleSink(stream=io.StringIO())
            with pytest.raises(SinkClosedError):
                await sink.write(make_batch())
            await sink.open()
            await sink.aclose()
            with pytest.raises(SinkClosedError):
                await sink.write(make_batch())

        asyncio.run(main())

    def test_the_last_resort_needs_no_open(self) -> None:
        stream = io.StringIO()
        ConsoleSink(stream=stream).write_now(make_batch(2))
        assert stream.getvalue().count("\n") == 2

    def test_a_closed_stream_is_permanent(self) -> None:
        stream = io.StringIO()
        stream.close()
        with pytest.raises(PermanentSinkError):
            written(ConsoleSink(stream=stream), make_batch())

    def test_a_program_without_stderr_is_permanent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        with pytest.raises(PermanentSinkError):
            written(ConsoleSink(), make_batch())

    def test_a_reader_that_went_away_is_permanent(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as pipe:
            with pytest.raises(PermanentSinkError, match="Broken pipe"):
                written(ConsoleSink(stream=pipe), make_batch())
            with pytest.raises(PermanentSinkError, match="Broken pipe"):
                ConsoleSink(stream=pipe).write_now(make_batch())

    def test_a_full_device_is_transient(self) -> None:
        with (
            open("/dev/full", "w", encoding="utf-8") as full,
            pytest.raises(TransientSinkError, match="No space"),
        ):
            written(ConsoleSink(stream=full), make_batch())

    def test_a_pipe_that_nobody_reads_blocks_neither_the_loop_nor_the_last_resort(self) -> None:
        reading, writing = os.pipe()

        async def main(sink: ConsoleSink) -> None:
            await sink.open()
            stuck = asyncio.ensure_future(sink.write(make_batch(5_000)))
            full = select.poll()
            full.register(writing, select.POLLOUT)
            while full.poll(0):  # noqa: ASYNC110 - the loop runs on while the pipe fills and the write waits
                await asyncio.sleep(0)
            assert not stuck.done()
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
            await sink.aclose()

        with open(writing, "w", encoding="utf-8") as pipe:
            asyncio.run(main(ConsoleSink(stream=pipe)))
            with pytest.raises(TransientSinkError, match="nobody reads"):
                ConsoleSink(stream=pipe).write_now(make_batch())
            os.close(reading)  # ends the thread that is still stuck

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize("how", ["last resort", "again", "again, opened anew"])
    def test_a_batch_whose_writing_was_left_behind_is_shown_once(self, how: str) -> None:
        reading, writing = os.pipe()
        batch = make_batch(2_000)

        async def main(sink: ConsoleSink) -> None:
            await sink.open()
            stuck = asyncio.ensure_future(sink.write(batch))
            full = select.poll()
            full.register(writing, select.POLLOUT)
            while full.poll(0):  # noqa: ASYNC110 - the loop runs on while the pipe fills and the write waits
                await asyncio.sleep(0)
            stuck.cancel()
            await asyncio.wait({stuck})
            if how == "last resort":
                again = asyncio.ensure_future(asyncio.to_thread(sink.write_now, batch))
            else:
                if how == "again, opened anew":
                    await sink.open()
                again = asyncio.ensure_future(sink.write(batch))
            reader.start()
            await again
            await sink.aclose()

        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reading, 65_536), b"")))
        with open(writing, "w", encoding="utf-8") as pipe:
            asyncio.run(main(ConsoleSink(stream=pipe)))
        until(lambda: not reader.is_alive())  # when the last descriptor of the pipe is closed
        os.close(reading)
        numbers = [int(line.split()[3]) for line in b"".join(got).splitlines()]
        assert numbers == list(range(2_000))

    def test_a_batch_that_comes_again_after_others_is_shown_again(self) -> None:
        stream = io.StringIO()
        sink = ConsoleSink(stream=stream)
        for batch in (first := make_batch(2), first, make_batch(3), first):
            sink.write_now(batch)
        assert stream.getvalue().count("\n") == 7

    @pytest.mark.timeout(30)
    def test_a_pipe_that_nobody_reads_does_not_hold_back_the_end_of_the_program(self) -> None:
        script = """
import asyncio
from asynctrace.sinks.console import ConsoleSink
from asynctrace.testing import make_batch
async def main():
    sink = ConsoleSink()
    await sink.open()
    try:
        await asyncio.wait_for(sink.write(make_batch(5_000)), 0.5)
    except TimeoutError:
        print("stuck")
asyncio.run(main())
"""
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.wait(20) == 0
            assert process.stdout is not None
            assert process.stdout.read() == b"stuck\n"
