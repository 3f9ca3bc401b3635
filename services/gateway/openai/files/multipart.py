"""A body of several parts (RFC 7578), read as it comes: no more of it is in memory than arrives at a time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from email.message import Message

from schemas.errors import InvalidRequest

MOST_HEAD_BYTES = 8_192
MEDIA_TYPE = "multipart/form-data"
PARAMETER = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"')
ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class FormPart:
    """A part begins: what it is called, and the name of the file that it is, if it is one."""

    name: str
    filename: str | None


def boundary_of(content_type: str) -> bytes:
    """What lies between the parts. InvalidRequest for a body that is not of this kind."""
    told = Message()
    told["content-type"] = content_type
    boundary = told.get_param("boundary")
    if told.get_content_type() != MEDIA_TYPE or not isinstance(boundary, str) or not 0 < len(boundary) <= 70:
        raise InvalidRequest(f"the body must be {MEDIA_TYPE}, with a boundary")
    return boundary.encode()


async def parts_of(stream: AsyncIterable[bytes], boundary: bytes) -> AsyncIterator[FormPart | bytes]:
    """Each part, followed by what is in it piece by piece. InvalidRequest for what is no such body."""
    delimiter = b"\r\n--" + boundary
    buffer = bytearray(b"\r\n")
    in_head = in_part = False
    async for came in stream:
        buffer += came
        while True:
            if in_head:
                end = buffer.find(b"\r\n\r\n")
                if end > MOST_HEAD_BYTES or (end < 0 and len(buffer) > MOST_HEAD_BYTES):
                    raise InvalidRequest("the head of a part is too long")
                if end < 0:
                    break
                yield _part(bytes(buffer[:end]))
                del buffer[: end + 4]
                in_head, in_part = False, True
            at = buffer.find(delimiter)
            known = at if at >= 0 else max(0, len(buffer) - len(delimiter) + 1)
            if known and in_part:
                yield bytes(buffer[:known])
            del buffer[:known]
            if at < 0 or len(buffer) < len(delimiter) + 2:
                break
            after = bytes(buffer[len(delimiter) : len(delimiter) + 2])
            if after == b"--":
                return
            if after != b"\r\n":
                raise InvalidRequest("the boundary of a part must end its line")
            # The end of that line may be the one before an empty head.
            del buffer[: len(delimiter)]
            in_head, in_part = True, False
    raise InvalidRequest("the body ended before its end")


def _part(head: bytes) -> FormPart:
    told = {name: _unescaped(value) for name, value in PARAMETER.findall(_disposition(head))}
    if "name" not in told:
        raise InvalidRequest("a part has no name")
    return FormPart(told["name"], told.get("filename"))


def _disposition(head: bytes) -> str:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            return value
    return ""


def _unescaped(value: str) -> str:
    return ESCAPED.sub(r"\1", value).replace("%22", '"')
