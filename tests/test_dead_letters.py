"""Dead letters: kept with the reason, capped, listed, replayed, purged."""

from pathlib import Path

import pytest
from disk_kit import files_up_to

from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.spool import Spool
from asynctrace.pipeline.state_directory import StateDirectory, lane_key
from asynctrace.pipeline.stream_queue import Adopted
from asynctrace.testing import ManualClock, make_batch


def test_a_letter_tells_record_reason_time_and_sink(tmp_path: Path) -> None:
    clock = ManualClock()
    letters = DeadLetters(tmp_path / "lane", clock=clock)
    batch = make_batch(2)
    letters.add(batch[:1].records, lane="redis", sink="<Redis>", reason="too long")
    clock.advance(1.0)
    letters.add(batch[1:].records, lane="redis", sink="<Redis>", reason="odd", traceback="Traceback …")

    first, second = letters

    assert (first.to_record(), second.to_record()) == batch.records
    assert (first.lane, first.sink, first.reason, first.traceback) == ("redis", "<Redis>", "too long", "")
    assert second.traceback == "Traceback …"
    assert second.time_ns - first.time_ns == 1_000_000_000
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "lane").iterdir()} == {0o600}


def test_the_older_half_goes_when_the_bytes_are_used_up(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, max_bytes=20_000)
    given_up = 0
    for first in range(0, 200, 5):
        given_up += letters.add(make_batch(5, first=first).records, lane="a", sink="b", reason="c")
        assert letters.size <= 20_000

    kept = [letter.to_record().seq for letter in letters]

    assert kept == list(range(200 - len(kept), 200))
    assert given_up == 200 - len(kept) > 0


def test_replay_hands_them_to_the_spool_once_and_in_order(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "dead", max_bytes=100_000)
    letters.add(make_batch(60).records, lane="a", sink="b", reason="c")
    letters.add(make_batch(60, first=60).records, lane="a", sink="b", reason="c")

    assert letters.replay(tmp_path / "spool") == 120
    assert letters.replay(tmp_path / "spool") == 0
    assert list(letters) == []
    spool = Spool(tmp_path / "spool", max_age=1e12)
    assert spool.adopt() == Adopted(replayed=120)
    read = []
    while (reading := spool.read(50)).position is not None:
        read += [record.seq for record in reading.batch]
        spool.acknowledge(reading.position)
    assert read == list(range(120))
    spool.close()


def test_purge_deletes_and_counts(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    assert letters.purge() == 0
    letters.add(make_batch(3).records, lane="a", sink="b", reason="c")
    assert letters.purge() == 3
    assert list(letters) == []


def test_half_a_line_of_a_killed_process_spoils_no_neighbour(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.add(make_batch(1).records, lane="a", sink="b", reason="c")
    path = tmp_path / "letters.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        letters.add(make_batch(1, first=7).records, lane="a", sink="b", reason="c")
        assert {letter.to_record().seq for letter in letters} == {0, 7}


def test_a_full_disk_keeps_what_was_there_whole(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path)
    letters.add(make_batch(1).records, lane="a", sink="b", reason="c")
    with files_up_to(letters.size + 100), pytest.raises(OSError, match="File too large"):
        letters.add(make_batch(1, first=1).records, lane="a", sink="b", reason="c")
    letters.add(make_batch(1, first=2).records, lane="a", sink="b", reason="c")
    assert [letter.to_record().seq for letter in letters] == [0, 2]


def test_state_is_kept_in_the_first_directory_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = StateDirectory([tmp_path / "file" / "x", tmp_path / "state"])
    assert state.spools("lane") == [tmp_path / "state" / "spool" / "lane"]
    assert state.dead_letters("lane") == [tmp_path / "state" / "dead" / "lane"]
    assert not (tmp_path / "state").exists(), "asking makes nothing"


def test_without_any_it_is_memory_only_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    state = StateDirectory([tmp_path / "file" / "x"])
    assert state.spools("lane") == state.dead_letters("lane") == []
    assert caplog.records == [], "nothing is to be kept yet"
    state.complain()
    state.complain()
    assert [record.message for record in caplog.records if "state directory" in record.message] == [
        f"no state directory can be written ({tmp_path / 'file' / 'x'}): what cannot be delivered stays in memory"
    ]


def test_the_name_of_a_lane_outlives_the_process() -> None:
    class Plain:
        pass

    assert lane_key("plain", repr(Plain())) == lane_key("plain", repr(Plain()))
    assert lane_key("redis", "redis://a/0") != lane_key("redis", "redis://a/1")
    assert lane_key("../Evil", "x").startswith("evil-")
