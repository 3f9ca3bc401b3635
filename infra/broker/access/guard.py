"""Checks that a broker refuses who has no password: asked of the broker itself, not of its configuration."""

from __future__ import annotations

import asyncio
import ssl

from schemas.errors import ConfigurationError

LOOK_DEADLINE_S = 5.0
REFUSED = b"-ERR 'Authorization"
LET_IN = b"+OK"


async def check_guarded(host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
    """Raises ConfigurationError unless the broker refuses a connection without credentials; over TLS if it
    speaks that.

    The protocol is spoken by hand: a client library would try again, or hide what was said. Nothing follows
    CONNECT: a broker that hangs up on bytes it has not read takes back what it said before.
    """
    said = b""
    try:
        async with asyncio.timeout(LOOK_DEADLINE_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(b'CONNECT {"verbose":true}\r\n')
                while REFUSED not in said and LET_IN not in said and (block := await reader.read(4096)):
                    said += block
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        if REFUSED not in said:  # it may hang up before all has been read
            raise ConfigurationError(
                f"whether the broker at {host}:{port} refuses strangers could not be found out "
                f"({str(error) or 'it took too long'}), so it does not stay"
            ) from error
    if REFUSED not in said:
        raise ConfigurationError(
            f"the broker at {host}:{port} lets anybody in without credentials, though it should not: "
            "see that no other configuration takes its accounts away",
            field="mesh",
        )
