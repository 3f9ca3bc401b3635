"""Sends a message at once: no queue, no task, no words that are looked through again.

nats-py (2.16) searches subject, inbox and each header of a message with regular expressions, and tells a task
of its own, by a queue, that there is something to be written. That is more than the sending, for a request
whose words are the client's own.
"""

from __future__ import annotations

from nats.aio.client import Client
from nats.aio.transport import TcpTransport

HEAD = b"NATS/1.0\r\n%s\r\n"
FIELD = b"%s: %s\r\n"
COMMAND = b"HPUB %s %s %d %d\r\n%s%s\r\n"
UNREAD_BYTES = 65_536
"""With more that the broker has not read, nats-py waits for the broker."""


def send_directly(client: Client, subject: str, reply: str, payload: bytes, headers: dict[str, str]) -> bool:
    """Sends a message that may be sent: its subjects and headers are this program's own words, and its
    payload is no larger than the broker takes. False where it has to go by `Client.publish`: without a
    connection, or behind a broker that is slow to read."""
    transport = client._transport
    if not client.is_connected or client.is_draining_pubs or not isinstance(transport, TcpTransport):
        return False
    writer = transport._io_writer
    if writer is None or writer.transport.is_closing():
        return False
    if writer.transport.get_write_buffer_size() > UNREAD_BYTES:
        return False
    fields = b"".join([FIELD % (name.encode(), value.encode()) for name, value in headers.items()])
    head = HEAD % fields
    size = len(head) + len(payload)
    command = COMMAND % (subject.encode(), reply.encode(), len(head), size, head, payload)
    before, client._pending = client._pending, []  # what was published before goes before
    client._pending_data_size = 0
    writer.write(b"".join((*before, command)) if before else command)
    client.stats["out_msgs"] += 1
    client.stats["out_bytes"] += len(payload)
    return True
