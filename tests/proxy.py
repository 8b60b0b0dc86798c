"""A proxy in front of an S3 server that counts requests and plants network and server faults."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pytest

ERRORS = {
    "busy": (503, "SlowDown"),
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "archived": (403, "InvalidObjectState"),
}
_HOP = {"connection", "transfer-encoding", "date", "server", "content-length"}


def point(patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Point this process to a server by its `environment` variables, as `loopback` gives them."""
    for name in os.environ.keys() - environment.keys():
        if name.startswith("AWS_"):
            patch.delenv(name)
    for name, value in environment.items():
        if name.startswith(("AWS_", "SSL_")):
            patch.setenv(name, value)


class Proxy:
    """The state of a proxy: the requests so far, and the faults to plant."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.endpoint = ""
        self.listings = 0
        self.gets: Counter[str] = Counter()
        """By key, without the bucket."""
        self.asked: list[tuple[str, str]] = []
        """Keys and the ranges that were asked for of them, empty: all."""
        self.puts: Counter[str] = Counter()
        """What was taken, by key; parts of an upload by `key?number`."""
        self.sent_bytes: Counter[str] = Counter()
        """Of the contents, by key, in answers without a fault."""
        self.fault: Callable[[str, int], str] = lambda key, nth: ""
        """What to do to the nth answer, from 1, to a request for the key (empty: a listing): one of `ERRORS`, `reset`,
        `truncate` or `stall` in the middle, `slow`, `damage` a byte, `change` the ETag, markup to send in its place, or
        nothing."""
        self.put_fault: Callable[[str], str] = lambda name: ""
        """What to do in place of taking something, named as in `puts`: one of `ERRORS`, `stall`, or nothing."""
        self.extra: dict[str, bytes] = {}
        """Objects in place of those of the server or beside them, which are listed below their prefixes. No parts
        of them are given."""
        self.encrypted: set[str] = set()
        """Those of them that are by a key of their owner's: their ETags are no MD5."""
        self.uploads_denied = False
        """Whether listing the unfinished uploads is denied."""
        self.over = threading.Event()
        self.seen = threading.Condition()

    def count(self, key: str) -> int:
        """Count a request and return the number of those so far for the key."""
        with self.seen:
            if key:
                self.gets[key] += 1
            else:
                self.listings += 1
            self.seen.notify_all()
            return self.gets[key] if key else self.listings

    @property
    def requests(self) -> int:
        return self.listings + self.gets.total()

    def wait_for(self, requests: int, within_s: float = 300) -> bool:
        """Wait for a number of requests; return whether they came."""
        with self.seen:
            return self.seen.wait_for(lambda: self.requests >= requests, within_s)


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy until the block ends."""
    state = Proxy(upstream)

    class Handler(_Handler):
        proxy = state

    with _Server(("127.0.0.1", 0), Handler) as server:
        state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            state.over.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed and connections cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def _answer(self) -> None:
        path = urlsplit(self.path)
        key = unquote(path.path).lstrip("/").partition("/")[2]
        query = parse_qs(path.query, keep_blank_values=True)
        part = f"{key}?{query['partNumber'][0]}" if "partNumber" in query else key
        fault = "" if query.keys() & {"uploads", "uploadId"} and self.command == "GET" else self._fault(key, part)
        if "uploads" in query and self.command == "GET" and self.proxy.uploads_denied:
            fault = "denied"
        if fault.startswith("<"):
            self._send(200, {"Content-Type": "text/html"}, fault.encode(), "")
            return
        if fault in ERRORS:
            status, code = ERRORS[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            self._send(status, {"Content-Type": "application/xml"}, text, "")
            return
        if key in self.proxy.extra:
            content = self.proxy.extra[key]
            head = {"ETag": f'"{self._etag(key)}"', "Last-Modified": "Fri, 20 Nov 2026 12:00:00 GMT"}
            if key in self.proxy.encrypted:
                head["x-amz-server-side-encryption"] = "aws:kms"
            self._send(200, head, content, fault)
            return
        status, headers, content = self._forward()
        if self.command == "PUT" and status == 200:
            self.proxy.puts[part] += 1
        if "Content-Range" in headers:
            status = 206  # which rclone gives parts without
        if not key and status == 200 and "prefix" in query and "continuation-token" not in query:
            content = content.replace(b"</ListBucketResult>", self._listed(query) + b"</ListBucketResult>")
        self._send(status, headers, content, fault)
        if self.command == "GET" and not fault:
            self.proxy.sent_bytes[key] += len(content)

    def _fault(self, key: str, part: str) -> str:
        """Record the request and return the fault of its answer."""
        if self.command == "GET":
            self.proxy.asked += [(key, self.headers.get("Range", ""))] * bool(key)
            return self.proxy.fault(key, self.proxy.count(key))
        if self.command != "PUT" or not (fault := self.proxy.put_fault(part)):
            return ""
        self.rfile.read(int(self.headers["Content-Length"]))
        if fault == "stall":
            self.proxy.over.wait()
            raise ConnectionAbortedError
        return fault

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815

    def _listed(self, query: dict[str, list[str]]) -> bytes:
        """The extra objects that a listing names: all below its prefix, or those in the folder itself."""
        [prefix], whole = query["prefix"], "delimiter" not in query
        below = {key: key.removeprefix(prefix) for key in self.proxy.extra if prefix and key.startswith(prefix)}
        listed = {key: self.proxy.extra[key] for key, name in below.items() if whole or "/" not in name}
        return b"".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><StorageClass>STANDARD</StorageClass>"
            f"<LastModified>2026-11-20T12:00:00.000Z</LastModified><ETag>&quot;{self._etag(key)}&quot;</ETag></Contents>".encode()
            for key, content in listed.items()
        )

    def _etag(self, key: str) -> str:
        content = self.proxy.extra[key] + (b"and something" if key in self.proxy.encrypted else b"")
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    def _forward(self) -> tuple[int, dict[str, str], bytes]:
        length = int(self.headers.get("Content-Length", 0))
        upstream = http.client.HTTPConnection(self.proxy.upstream.hostname or "", self.proxy.upstream.port or 0)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(self.rfile.read(length) if length else None)
            response = upstream.getresponse()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = response.getheader("Content-Length", "0")
            return response.status, headers, response.read()
        finally:
            upstream.close()

    def _send(self, status: int, headers: dict[str, str], content: bytes, fault: str) -> None:
        if fault == "damage" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "change":
            headers = {name: value for name, value in headers.items() if name.lower() != "etag"}
            headers["ETag"] = '"00000000000000000000000000000000"'
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in {"reset", "truncate", "stall"}:
            self._cut(content[: len(content) // 2], fault)
        elif fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 4)):
                self.wfile.write(content[start : start + max(1, len(content) // 4)])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.wfile.write(content)

    def _cut(self, content: bytes, fault: str) -> None:
        """Send only the beginning."""
        self.wfile.write(content)
        self.wfile.flush()
        self.close_connection = True
        if fault == "stall":
            self.proxy.over.wait()
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
