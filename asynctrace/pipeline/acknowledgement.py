"""The Acknowledgement: up to which entry all is delivered, in a small file that takes its room in advance."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from zlib import crc32

_NUMBER = struct.Struct(">QI")
_SLOT = 16  # bytes; two slots are written in turn, so that one is always whole
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class Acknowledgement:
    """One number on disk. One process at a time, one call at a time.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._turn = 0

    def read(self) -> int:
        """The number; 0 when there is none that is whole: then all comes again.

        Raises:
            OSError: it can be read later.
        """
        try:
            data = self._path.read_bytes()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return 0
        newest = 0
        for turn in (0, 1):
            slot = data[turn * _SLOT : turn * _SLOT + _NUMBER.size]
            if len(slot) == _NUMBER.size:
                number, checksum = _NUMBER.unpack(slot)
                if crc32(slot[:8]) == checksum and number >= newest:
                    newest, self._turn = number, turn
        return newest

    def reserve(self) -> None:
        """Take the room for it: a disk that is full later can be read empty all the same.

        Raises:
            OSError: there is none.
        """
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | _CLOEXEC, 0o600)
        if os.fstat(self._file).st_size < 2 * _SLOT:
            os.lseek(self._file, 0, os.SEEK_END)
            os.write(self._file, bytes(2 * _SLOT - os.fstat(self._file).st_size))

    def write(self, number: int) -> None:
        """Put the number down.

        Raises:
            OSError: it could not be written; the one before is still there.
        """
        self.reserve()
        self._turn ^= 1
        os.lseek(self._file, self._turn * _SLOT, os.SEEK_SET)
        packed = struct.pack(">Q", number)
        os.write(self._file, packed + struct.pack(">I", crc32(packed)))

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Close and delete it."""
        self.close()
        self._path.unlink(missing_ok=True)
