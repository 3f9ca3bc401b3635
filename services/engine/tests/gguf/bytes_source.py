"""Bytes in memory, where the product reads a file or a range of one."""

from __future__ import annotations


class BytesSource:
    """Bytes in memory as a `ByteSource`."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]
