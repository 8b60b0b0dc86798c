"""The proxy counts every byte, keeps the order, and delivers nothing earlier than its limits allow."""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from loaderbench.bucket import metered_network as network
from loaderbench.bucket.metered_network import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = bytes(range(256)) * 800  # several reads


class TestLink:
    def test_data_waits_for_earlier_data_of_all_connections(self) -> None:
        link = Link(rate_bytes_per_s=1000)
        assert [link.carry(500, 10.0), link.carry(500, 10.0), link.carry(1000, 10.25)] == [10.5, 11.0, 12.0]

    def test_idle_time_is_not_saved_up(self) -> None:
        link = Link(rate_bytes_per_s=1000)
        assert [link.carry(500, 10.0), link.carry(500, 20.0)] == [10.5, 20.5]

    def test_latency_delays_data_and_keeps_the_rate(self) -> None:
        link = Link(rate_bytes_per_s=1000, latency_s=0.5)
        assert [link.carry(500, 10.0), link.carry(500, 10.0)] == [10.75, 11.25]

    def test_data_without_limits_arrives_at_once(self) -> None:
        assert Link().carry(1 << 40, 10.0) == 10.0

    def test_received_bytes_are_known_at_any_time(self) -> None:
        link = Link()
        for size_bytes, now_ns in (5, 100), (7, 200), (11, 300):
            link.count(size_bytes, now_ns)
        assert [link.received_bytes(at) for at in (99, 100, 250, 300, None)] == [0, 5, 12, 23, 23]


@contextmanager
def server(*, round_trips: int = 1) -> Iterator[int]:
    """Answer each received byte with the body; yield the port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            for _ in range(round_trips):
                connection.recv(1)
                connection.sendall(BODY)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=[connection]).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def connected(url: str, port: int, host: str = "127.0.0.1") -> tuple[socket.socket, bytes]:
    """Return a connection through the proxy and the status line of the answer."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=300)
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n{own(url)}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return connection, head.partition(b"\r\n")[0]


def fetch(url: str, port: int, *, round_trips: int = 1) -> bytes:
    connection, _ = connected(url, port)
    got = b""
    with connection:
        for trip in range(1, round_trips + 1):
            connection.sendall(b"?")
            while len(got) < trip * len(BODY):
                got += connection.recv(1 << 16)
        assert connection.recv(1) == b""  # the server has closed, and so has the proxy
    return got


def test_proxy_passes_answers_unchanged_and_counts_them() -> None:
    link = Link()
    with server() as port, network.proxy(link) as url:
        before_ns = time.perf_counter_ns()
        assert fetch(url, port) == BODY
        assert fetch(url, port) == BODY
    assert link.received_bytes() == 2 * len(BODY)
    assert link.received_bytes(before_ns) == 0


def test_all_connections_share_the_rate_limit() -> None:
    link = Link(rate_bytes_per_s=1 << 20)
    with server() as port, network.proxy(link) as url:
        started_s = time.perf_counter()
        threads = [threading.Thread(target=fetch, args=[url, port]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.perf_counter() - started_s >= 3 * len(BODY) / (1 << 20)
    assert link.received_bytes() == 3 * len(BODY)


def test_each_round_trip_including_connecting_takes_the_latency() -> None:
    with server(round_trips=3) as port, network.proxy(Link(latency_s=0.05)) as url:
        started_s = time.perf_counter()
        assert fetch(url, port, round_trips=3) == 3 * BODY
        assert time.perf_counter() - started_s >= (1 + 3) * 0.05


def test_a_missing_server_is_reported_to_client_and_harness() -> None:
    with server() as port:
        pass
    link = Link()
    with network.proxy(link) as url:
        connection, status = connected(url, port)
        connection.close()
    assert status == b"HTTP/1.1 502 Bad Gateway"
    assert link.trouble == f"127.0.0.1:{port} did not answer: Connect call failed ('127.0.0.1', {port})"


def test_proxy_resolves_a_name_that_only_it_knows() -> None:
    with server() as port, network.proxy(Link(hosts={"bucket.invalid": "127.0.0.1"})) as url:
        connection, status = connected(url, port, "bucket.invalid")
        connection.close()
    assert status == b"HTTP/1.1 200 Connected"


def own(url: str) -> str:
    return "Proxy-Authorization: Basic " + b64encode(url.partition("://")[2].rpartition("@")[0].encode()).decode()


@pytest.mark.parametrize(
    ("request_lines", "status"),
    [
        ("GET / HTTP/1.1", 501),
        ("\x16\x03\x01", 400),
        ("", 400),
        ("CONNECT 127.0.0.1:https HTTP/1.1\r\n{own}", 400),
        ("CONNECT 127.0.0.1:99999 HTTP/1.1\r\n{own}", 400),
        ("CONNECT 127.0.0.1:80 HTTP/1.1\r\nX: " + 70_000 * "x", 400),
        (f"CONNECT {'x' * 70}.invalid:80 HTTP/1.1\r\n{{own}}", 502),
        ("CONNECT 127.0.0.1:{port} HTTP/1.1", 407),
        ("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nProxy-Authorization: Basic bG9hZGVyYmVuY2g6", 407),
        ("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nProxy-Authorization: Basic \xe9", 407),
        ("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n{own}", 200),
    ],
)
def test_what_is_no_request_of_a_client_with_the_key_is_refused(
    request_lines: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        server() as port,
        network.proxy(Link()) as url,
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client,
    ):
        filled = request_lines.replace("{own}", own(url)).replace("{port}", str(port))
        client.sendall(f"{filled}\r\n\r\n".encode("latin-1"))
        assert client.recv(1 << 10).startswith(f"HTTP/1.1 {status}".encode())
    assert not caplog.records


def test_closing_the_proxy_ends_its_connections() -> None:
    with server() as port:
        with network.proxy(Link()) as url:
            connection, _ = connected(url, port)
        with connection:
            assert connection.recv(1) == b""
            connection.sendall(b"?")
