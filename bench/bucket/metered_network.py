"""Count and limit what goes over the network, by an HTTP proxy that tunnels.

The content stays encrypted, so the proxy works for every server that speaks https, on loopback or elsewhere.
"""

import asyncio
import hmac
from array import array
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from threading import Thread
from time import perf_counter_ns

HOST = "127.0.0.1"
_READ_BYTES = 1 << 16
_AHEAD_S = 0.02
"""Data is read this long before the link can carry it: timers are too coarse to read it just in time."""
_MOST_QUEUED = 64
"""Maximum number of reads under way at once in each direction of a connection."""


class Link:
    """One line that all connections share. Received data waits until all earlier data has passed."""

    def __init__(
        self, rate_bytes_per_s: float | None = None, latency_s: float = 0, hosts: Mapping[str, str] | None = None
    ) -> None:
        """`rate_bytes_per_s`: limit of what is received, over all connections together; None: unlimited.

        `latency_s`: of a round trip, half of it each way; opening a connection takes one, as it does by TCP. `hosts`:
        addresses of names that only this proxy can resolve.
        """
        self.rate_bytes_per_s = rate_bytes_per_s
        self.hosts = hosts or {}
        self.latency_s = latency_s
        self._free_s = 0.0
        self.trouble = ""
        """The last error of opening a connection."""
        self._received = 0
        self._times_ns, self._totals = array("q"), array("q")

    def begins_s(self, now_s: float) -> float:
        """Return when data that is read now can begin to pass."""
        return max(now_s, self._free_s)

    def carry(self, size_bytes: int, now_s: float) -> float:
        """Let data pass, and return when all of it has arrived."""
        if self.rate_bytes_per_s:
            self._free_s = self.begins_s(now_s) + size_bytes / self.rate_bytes_per_s
        return self.begins_s(now_s) + self.latency_s / 2

    def count(self, size_bytes: int, now_ns: int) -> None:
        """Count received data."""
        self._received += size_bytes
        self._times_ns.append(now_ns)
        self._totals.append(self._received)

    def received_bytes(self, until_ns: int | None = None) -> int:
        """Return the bytes received in all, or until a time of `perf_counter_ns`, a clock that all processes share."""
        known = len(self._totals)
        place = known if until_ns is None else bisect_right(self._times_ns, until_ns, hi=known)
        return self._totals[place - 1] if place else 0


@contextmanager
def proxy(link: Link) -> Iterator[str]:
    """Run a proxy in a thread until the block ends, and give its URL. All of its connections use the link.

    The URL holds a password that is drawn for it, because other users of the machine can reach the proxy too.
    """
    account = f"loaderbench:{token_hex(16)}"
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(lambda *ends: _tunnel(link, account, *ends), HOST, 0))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://{account}@{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _RefusedError(Exception):
    """A request that is not served. The message is the status line of the answer."""


async def _asked(reader: asyncio.StreamReader, account: str) -> tuple[str, int]:
    """Read a CONNECT request and return its host and port. Raises _RefusedError."""
    try:
        request, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        verb, target, *_ = request.split()
        host, _, port = target.rpartition(":")
        if verb != "CONNECT":
            raise _RefusedError("501 Only CONNECT is understood")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
        expected = f"Basic {b64encode(account.encode()).decode()}"
        if not hmac.compare_digest(fields.get("proxy-authorization", "").encode("latin-1"), expected.encode()):
            raise _RefusedError("407 Proxy Authentication Required")
        if not 0 < int(port) < 1 << 16:
            raise _RefusedError("400 Bad Request")
    except (ValueError, asyncio.LimitOverrunError):
        raise _RefusedError("400 Bad Request") from None
    return host, int(port)


async def _tunnel(link: Link, account: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client: connect it to `host:port` of its CONNECT request, and relay both ways."""
    try:
        try:
            host, port = await _asked(reader, account)
        except _RefusedError as refused:
            await _refuse(writer, str(refused))
            return
        try:
            address = link.hosts.get(host, host.strip("[]"))
            far_reader, far_writer = await asyncio.open_connection(address, port)
        except (OSError, ValueError) as error:  # ValueError: no name of a host
            link.trouble = f"{host}:{port} did not answer: {getattr(error, 'strerror', '') or error}"
            await _refuse(writer, "502 Bad Gateway")
            return
        await asyncio.sleep(link.latency_s)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        async with asyncio.TaskGroup() as both:
            both.create_task(_relay(link, reader, far_writer))
            both.create_task(_relay(link, far_reader, writer, received=True))
    except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass  # one end is gone, and the other is closed now; or the proxy ends
    finally:
        writer.close()


async def _refuse(writer: asyncio.StreamWriter, why: str) -> None:
    writer.write(f"HTTP/1.1 {why}\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()


async def _relay(
    link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, received: bool = False
) -> None:
    """Pass data from one end to the other until one is gone. `received`: it comes from the server."""
    on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_QUEUED)
    now_s = asyncio.get_running_loop().time
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_arrive(link, on_its_way, writer, received=received))
            while content := await reader.read(_READ_BYTES):
                due_s = link.carry(len(content), now_s()) if received else now_s() + link.latency_s / 2
                await on_its_way.put((due_s, content))
                if received:
                    await asyncio.sleep(link.begins_s(now_s()) - _AHEAD_S - now_s())
            await on_its_way.put((now_s() + link.latency_s / 2, b""))
    finally:
        writer.close()


async def _arrive(
    link: Link, on_its_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, received: bool
) -> None:
    now_s = asyncio.get_running_loop().time
    while True:
        due_s, content = await on_its_way.get()
        await asyncio.sleep(due_s - now_s())
        if not content:
            return
        writer.write(content)
        await writer.drain()
        if received:
            link.count(len(content), perf_counter_ns())
