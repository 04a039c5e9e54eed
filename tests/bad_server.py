"""A real HTTP server on this machine that fails in the ways servers and networks fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.path, self.headers.get("Range")))
        answer = self.server.answers.pop(0) if self.server.answers else whole
        data = self.server.files.get(self.path)
        try:
            if data is None:
                self.send_error(404)
            else:
                answer(self, data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def start(self) -> int:
        """The first byte that was asked for."""
        given = self.headers.get("Range")
        return int(given.removeprefix("bytes=").rstrip("-")) if given else 0

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def body_head(self, data: bytes, announced: int | None = None) -> None:
        """What a right server says before the bytes from `start`."""
        total = len(data) if announced is None else announced
        if self.start:
            span = f"bytes {self.start}-{total - 1}/{total}"
            self.head(206, Content_Length=total - self.start, Content_Range=span)
        else:
            self.head(200, Content_Length=total)


class Server(ThreadingHTTPServer):
    """`files` by path; `answers` are used up one a request, then everything is right; `asked` is what came in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str | None]] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def whole(handler: Handler, data: bytes) -> None:
    if handler.start >= len(data) > 0 and handler.start:
        handler.head(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
        return
    handler.body_head(data)
    handler.wfile.write(data[handler.start :])


def truncated(after: int) -> Answer:
    """Promises everything and closes the connection `after` bytes further on."""

    def answer(handler: Handler, data: bytes) -> None:
        handler.body_head(data)
        handler.wfile.write(data[handler.start :][:after])

    return answer


def stalled(after: int) -> Answer:
    """Goes silent after some bytes, and keeps the connection open."""

    def answer(handler: Handler, data: bytes) -> None:
        truncated(after)(handler, data)
        handler.wfile.flush()
        handler.server.over.wait(60)

    return answer


def trickling(handler: Handler, data: bytes) -> None:
    """A byte now and then, so that no single read ever times out."""
    handler.body_head(data)
    for index in range(handler.start, len(data)):
        handler.wfile.write(data[index : index + 1])
        handler.wfile.flush()
        if handler.server.over.wait(0.02):
            return


def announcing(length: int) -> Answer:
    """Lies about the length of the file, and then sends all of it."""

    def answer(handler: Handler, data: bytes) -> None:
        handler.body_head(data, length)
        handler.wfile.write(data[handler.start :])

    return answer


def without_ranges(handler: Handler, data: bytes) -> None:
    handler.head(200, Content_Length=len(data))
    handler.wfile.write(data)


def another_range(handler: Handler, data: bytes) -> None:
    """Calls bytes from elsewhere a part of the answer."""
    handler.head(206, Content_Length=len(data), Content_Range=f"bytes 0-{len(data) - 1}/{len(data)}")
    handler.wfile.write(data)


def without_length(handler: Handler, data: bytes) -> None:
    handler.head(200)
    handler.wfile.write(data)


def chunked(upto: int | None = None) -> Answer:
    """Transfer-Encoding: chunked, cut off after some bytes if asked to."""

    def answer(handler: Handler, data: bytes) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        piece = data[:upto]
        handler.wfile.write(f"{len(data):x}\r\n".encode() + piece)
        if upto is None:
            handler.wfile.write(b"\r\n0\r\n\r\n")

    return answer


def saying(status: int, **headers: object) -> Answer:
    return lambda handler, data: handler.head(status, Content_Length=0, **headers)


def page(handler: Handler, data: bytes) -> None:
    """What a file host shows instead of a file when it wants a click first."""
    text = b"<html>Are you a robot?</html>"
    handler.head(200, Content_Type="text/html; charset=utf-8", Content_Length=len(text))
    handler.wfile.write(text)


def giving(other: bytes) -> Answer:
    """Another file in place of the right one."""
    return lambda handler, data: whole(handler, other)
