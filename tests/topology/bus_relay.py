"""Runs in a box, and carries bytes between a socket and its system bus: python bus_relay.py SOCKET.

NetworkManager asks who its callers are, and refuses those that its own process namespace does not have. What
a test says through here comes from within.
"""

import asyncio
import sys

SYSTEM_BUS = "/run/dbus/system_bus_socket"


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    bus_reader, bus_writer = await asyncio.open_unix_connection(SYSTEM_BUS)
    await asyncio.gather(carry(reader, bus_writer), carry(bus_reader, writer))


async def main() -> None:
    server = await asyncio.start_unix_server(relay, sys.argv[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
