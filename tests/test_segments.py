"""Segments: whatever happens to the files, what is whole comes back in order and the rest is counted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disk_kit import files_up_to
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asynctrace.pipeline.entries import HEADER_BYTES
from asynctrace.pipeline.segments import Segments
from asynctrace.testing import ManualClock


def opened(directory: Path, **options: object) -> Segments:
    segments = Segments(directory, **options)  # type: ignore[arg-type]
    segments.open()
    return segments


def filled(directory: Path, count: int, **options: object) -> list[bytes]:
    """Entries of one process that ended; what it appended."""
    payloads = [b"payload %d" % number for number in range(1, count + 1)]
    segments = opened(directory, **options)
    for payload in payloads:
        segments.append([(True, payload)])
    segments.close()
    return payloads


def payloads(segments: Segments, limit: int = 1_000_000) -> list[bytes]:
    return [entry.payload for entry in segments.read(limit)]


def test_ten_thousand_come_back_in_order_over_many_files(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    written = filled(directory, 10_000, segment_bytes=4096)
    assert len(list(directory.glob("*.seg"))) > 50

    segments = opened(directory)
    assert segments.held == 10_000
    read: list[bytes] = []
    while entries := segments.read(77):
        read += [entry.payload for entry in entries]
        segments.acknowledge(entries[-1].id)

    assert read == written
    assert (segments.held, segments.damaged) == (0, 0)
    assert list(directory.glob("*.seg")) == []
    segments.close()


def test_what_is_not_acknowledged_comes_again(tmp_path: Path) -> None:
    written = filled(tmp_path, 10, segment_bytes=100)
    segments = opened(tmp_path)
    assert payloads(segments, 6) == written[:6]
    segments.acknowledge(4)
    segments.rewind()
    assert payloads(segments) == written[4:]
    segments.close()

    again = opened(tmp_path)
    assert again.held == 6
    assert payloads(again) == written[4:]
    again.close()


def test_torn_tail_at_every_byte_loses_only_the_torn_entry(tmp_path: Path) -> None:
    written = filled(tmp_path / "whole", 3)
    whole = next((tmp_path / "whole").glob("*.seg")).read_bytes()
    last = HEADER_BYTES + len(written[-1])
    for cut in range(1, last + 1):
        directory = tmp_path / f"cut-{cut}"
        directory.mkdir()
        (directory / f"{1:016x}.seg").write_bytes(whole[:-cut])

        segments = opened(directory)
        assert segments.held == 2
        assert segments.damaged == 0
        segments.append([(True, b"after")])
        assert payloads(segments) == [*written[:2], b"after"]
        segments.close()


def test_a_file_with_nothing_but_a_torn_entry_makes_room(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    path = next(tmp_path.glob("*.seg"))
    path.write_bytes(path.read_bytes()[:-1])

    segments = opened(tmp_path)
    assert (segments.held, segments.damaged) == (0, 0)
    segments.append([(True, b"after")])
    assert payloads(segments) == [b"after"]
    segments.close()


def test_a_flipped_bit_anywhere_loses_one_entry_and_never_stops_the_reader(tmp_path: Path) -> None:
    written = filled(tmp_path / "whole", 3)
    whole = next((tmp_path / "whole").glob("*.seg")).read_bytes()
    one = HEADER_BYTES + len(written[0])
    for position in range(one, 2 * one):
        directory = tmp_path / f"flip-{position}"
        directory.mkdir()
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        (directory / f"{1:016x}.seg").write_bytes(damaged)

        segments = opened(directory)
        assert (segments.held, segments.damaged) == (2, 1)
        assert payloads(segments) == [written[0], written[2]]
        segments.acknowledge(3)
        segments.append([(True, b"after")])
        assert payloads(segments) == [b"after"]
        assert len(list(directory.glob("*.bad"))) == 1, "the damaged file is kept aside"
        segments.close()


def test_damage_after_opening_is_counted_too(tmp_path: Path) -> None:
    written = filled(tmp_path, 9, segment_bytes=100)
    segments = opened(tmp_path)
    second = sorted(tmp_path.glob("*.seg"))[1]
    second.write_bytes(b"\xff" * second.stat().st_size)

    read = payloads(segments)

    assert 0 < len(read) < 9
    assert read == [payload for payload in written if payload in read]
    assert segments.held == len(read)
    assert segments.damaged == 9 - len(read)
    segments.close()


def test_a_file_that_is_gone_is_counted(tmp_path: Path) -> None:
    filled(tmp_path, 9, segment_bytes=100)
    sorted(tmp_path.glob("*.seg"))[1].unlink()

    segments = opened(tmp_path)

    assert 0 < segments.damaged == 9 - segments.held
    assert len(payloads(segments)) == segments.held
    segments.close()


def test_a_directory_removed_under_a_writer_is_made_again(tmp_path: Path) -> None:
    segments = opened(tmp_path / "s")
    segments.append([(True, b"gone")])
    for path in (tmp_path / "s").iterdir():
        path.unlink()
    (tmp_path / "s").rmdir()

    segments.append([(True, b"kept")])

    assert payloads(segments) == [b"kept"]
    assert (segments.held, segments.damaged) == (1, 1)
    segments.close()


def test_broken_acknowledgement_gives_out_again_rather_than_losing(tmp_path: Path) -> None:
    written = filled(tmp_path, 3)
    segments = opened(tmp_path)
    payloads(segments, 2)
    segments.acknowledge(2)
    segments.close()
    (tmp_path / "acknowledged").write_bytes(b"\xff" * 32)

    again = opened(tmp_path)
    assert payloads(again) == written
    again.close()


def test_looking_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    segments = Segments(tmp_path)
    segments.look()
    assert segments.held == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_fsync_is_done_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("asynctrace.pipeline.segments.os.fsync", synced.append)
    clock = ManualClock()
    segments = Segments(tmp_path, fsync_interval=2.0, clock=clock)
    segments.append([(True, b"1")])
    synced.clear()  # the new file's name in the directory

    segments.append([(True, b"2")])
    assert synced == []
    clock.advance(2.0)
    segments.append([(True, b"3")])
    assert len(synced) == 1
    segments.close()

    synced.clear()
    never = Segments(tmp_path / "never", fsync_interval=None, clock=clock)
    never.append([(True, b"1")])
    never.close()
    assert synced == []


def test_a_full_disk_takes_all_of_a_call_or_nothing(tmp_path: Path) -> None:
    segments = opened(tmp_path)
    segments.append([(True, b"a" * 100)])
    with files_up_to(200), pytest.raises(OSError, match="File too large"):
        segments.append([(True, b"b" * 50), (True, b"c" * 50)])
    segments.append([(True, b"d")])

    assert payloads(segments) == [b"a" * 100, b"d"]
    assert (segments.held, segments.damaged) == (2, 0)
    segments.close()
    again = opened(tmp_path)
    assert (again.held, again.damaged) == (2, 0)
    assert again.size == 2 * HEADER_BYTES + 101  # no half of an entry is left
    again.close()


def test_a_disk_that_is_full_from_the_start_is_not_littered(tmp_path: Path) -> None:
    segments = opened(tmp_path)
    with files_up_to(0), pytest.raises(OSError, match="File too large"):
        segments.append([(True, b"b")])
    assert list(tmp_path.iterdir()) == []
    segments.append([(True, b"c")])
    assert payloads(segments) == [b"c"]
    segments.close()


WRITER = """
import sys
from pathlib import Path
from asynctrace.pipeline.segments import Segments
segments = Segments(Path(sys.argv[1]), segment_bytes=20_000, fsync_interval=None)
segments.open()
while True:
    last = segments.append([(True, b"%d" % (segments.last + 1 + i)) for i in range(20)])
    print(last, flush=True)
"""

READER = """
import sys
from pathlib import Path
from asynctrace.pipeline.segments import Segments
segments = Segments(Path(sys.argv[1]))
segments.open()
while entries := segments.read(7):
    print(*[entry.payload.decode() for entry in entries], flush=True)
    segments.acknowledge(entries[-1].id)
    print("acknowledged", flush=True)
"""


def kill_after(program: str, directory: Path, lines: int) -> list[str]:
    """Run it until it has said so many lines, kill it; all it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(lines)]
    process.kill()
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=20) == -signal.SIGKILL
    return said + rest.split("\n")[:-1]


@pytest.mark.parametrize("lines", [1, 40, 173])
def test_killed_while_appending_loses_nothing_that_was_promised(tmp_path: Path, lines: int) -> None:
    promised = int(kill_after(WRITER, tmp_path, lines)[-1])

    segments = opened(tmp_path)
    read = payloads(segments)

    assert len(read) >= promised
    assert read == [b"%d" % number for number in range(1, len(read) + 1)]
    assert segments.damaged == 0
    segments.close()


@pytest.mark.parametrize("lines", [1, 2, 151])
def test_killed_while_replaying_gives_out_the_rest(tmp_path: Path, lines: int) -> None:
    segments = opened(tmp_path, segment_bytes=4096)
    for number in range(1, 3001):
        segments.append([(True, b"%d" % number)])
    segments.close()
    said = kill_after(READER, tmp_path, lines)
    groups = [line.split() for line in said if line != "acknowledged"]
    acknowledged = sum(len(group) for group in groups[: said.count("acknowledged")])

    again = opened(tmp_path)
    first = int(payloads(again)[0])

    assert acknowledged < first <= acknowledged + 14 + 1  # one group in flight, one not said any more
    assert again.held == 3000 - first + 1
    again.close()


class Model(RuleBasedStateMachine):
    """Appends, reads, acknowledgements, crashes and reopenings against a list."""

    @initialize(segment_bytes=st.sampled_from([60, 200, 5000]))
    def begin(self, segment_bytes: int) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.segment_bytes = segment_bytes
        self.model: list[tuple[int, bool, bytes]] = []
        self.given = 0
        self.written = False  # since it was opened: only then a crash can tear the newest file
        self.segments = self.reopened()

    def reopened(self) -> Segments:
        return opened(Path(self.folder.name), segment_bytes=self.segment_bytes, fsync_interval=None)

    @rule(payloads=st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), min_size=1, max_size=5))
    def append(self, payloads: list[tuple[bool, bytes]]) -> None:
        last = self.segments.append(payloads)
        first = last - len(payloads) + 1
        self.written = True
        self.model += [(first + index, *payload) for index, payload in enumerate(payloads)]

    @rule(limit=st.integers(1, 7))
    def read(self, limit: int) -> None:
        found = [tuple(entry) for entry in self.segments.read(limit)]
        assert found == self.model[self.given : self.given + limit]
        self.given += len(found)

    @rule(share=st.floats(0, 1))
    def acknowledge(self, share: float) -> None:
        if count := round(self.given * share):
            self.segments.acknowledge(self.model[count - 1][0])
            del self.model[:count]
            self.given -= count

    @rule()
    def rewind(self) -> None:
        self.segments.rewind()
        self.given = 0

    @rule(torn=st.binary(max_size=HEADER_BYTES - 1))
    def crash(self, torn: bytes) -> None:
        newest = max(Path(self.folder.name).glob("*.seg"), default=None)
        if newest is not None and torn and self.written:
            with open(newest, "ab") as file:  # the beginning of an entry that was never whole
                file.write(b"\0ATE"[: len(torn)] + torn[4:])
        abandoned, self.segments = self.segments, self.reopened()
        abandoned.close()
        self.given = 0
        self.written = False

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "segments"):
            assert self.segments.held == sum(counted for _, counted, _ in self.model)
            assert self.segments.damaged == 0

    def teardown(self) -> None:
        if hasattr(self, "segments"):
            self.segments.close()
            self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
