"""The labelling page over HTTP, on this machine alone: the page, its state, answers, and videos by their number.

Every address begins with a secret that is made at each start. No part of an address is ever used as a path: pages
and videos are found by name or number among those that there are.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from halign_bench.prefs.sitting import Sitting, WrongQuestionError

PAGES = {
    "": ("page.html", "text/html"), "page.css": ("page.css", "text/css"), "page.js": ("page.js", "text/javascript"),
}  # fmt: skip
MAX_BODY = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """Serves one annotator's sitting on 127.0.0.1; `port` 0 takes a free one. Raises OSError for one in use."""

    daemon_threads = True

    def __init__(self, sitting: Sitting, port: int = 0) -> None:
        self.sitting = sitting
        self.token = secrets.token_urlsafe(24)
        self.turn = threading.Lock()  # one answer at a time
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "halign-bench", ""
    timeout = 60  # of a connection on which nothing is said
    server: Server

    def do_GET(self) -> None:
        if (place := self._place()) is None:
            return
        if place in PAGES:
            name, kind = PAGES[place]
            self._send(Path(__file__).with_name("page").joinpath(name).read_bytes(), f"{kind}; charset=utf-8")
        elif place == "state":
            with self.server.turn:
                self._send_json(self.server.sitting.state())
        elif (match := re.fullmatch(r"video/([0-9]{1,9})/([12])", place)) is not None:
            self._video(int(match[1]), int(match[2]))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if (place := self._place()) is None:
            return
        if place not in ("answer", "undo"):
            return self._refuse(HTTPStatus.NOT_FOUND, "nothing can be sent there")
        if (given := self._body()) is None:
            return
        sitting = self.server.sitting
        with self.server.turn:
            try:
                if place == "undo":
                    sitting.undo()
                elif (answer := _answer(given)) is None:
                    return self._refuse(HTTPStatus.BAD_REQUEST, "that is no answer")
                else:
                    sitting.answer(*answer)
            except WrongQuestionError:
                return self._send_json({**sitting.state(), "error": "that was answered already"}, HTTPStatus.CONFLICT)
            except OSError as problem:
                text = f"the answer could not be kept: {problem.strerror or problem}"
                return self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, text)
            self._send_json(sitting.state())

    def _place(self) -> str | None:
        """What is asked for, below the secret; None when that, or the host, is wrong, which is answered here."""
        port = self.server.server_port
        # A page elsewhere whose name is made to lead to this machine sends that name.
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.FORBIDDEN, "this host is not served")
            return None
        _, token, *rest = [*self.path.split("?")[0].split("/", 2), ""]
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "use the whole address that the command printed")
            return None
        return rest[0]

    def _body(self) -> dict[str, Any] | None:
        """The JSON object that was sent; None when there is none, which is answered here."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an answer has at most {MAX_BODY} bytes")
            return None
        try:
            given = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "a JSON object is expected")
            return None
        return given

    def _video(self, number: int, side: int) -> None:
        session = self.server.sitting.session
        if number >= len(session.questions):
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such pair")
        path = session.video(session.questions[number].prompt, self.server.sitting.shown(number)[side - 1])
        try:
            if path.is_symlink():
                raise OSError
            file = path.open("rb")
        except OSError:
            return self._refuse(HTTPStatus.NOT_FOUND, f"{path.name} is gone; run `halign-bench prefs sample` again")
        with file:
            size = path.stat().st_size
            first, last, status = 0, size - 1, HTTPStatus.OK
            if (wanted := self.headers.get("Range")) is not None and (found := byte_range(wanted, size)) is not None:
                if not found:
                    self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                    self.send_header("Content-Range", f"bytes */{size}")
                    return self._end(b"", "text/plain")
                (first, last), status = found, HTTPStatus.PARTIAL_CONTENT
            self.send_response(status)
            self.send_header("Accept-Ranges", "bytes")
            if status == HTTPStatus.PARTIAL_CONTENT:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self._headers(last - first + 1, "video/mp4")
            if self.command != "HEAD":
                file.seek(first)
                self._copy(file, last - first + 1)

    def _copy(self, file: Any, count: int) -> None:
        try:
            while count > 0 and (block := file.read(min(count, 1 << 16))):
                self.wfile.write(block)
                count -= len(block)
        except (BrokenPipeError, ConnectionResetError):  # the page went on to another video
            self.close_connection = True

    def _send_json(self, document: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(document).encode(), "application/json", status)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # what was sent may be unread, and would be taken for the next request
        self._send_json({"error": text}, status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self._end(content, kind)

    def _end(self, content: bytes, kind: str) -> None:
        self._headers(len(content), kind)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _headers(self, length: int, kind: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Addresses hold the secret: they are not written anywhere."""


def _answer(given: dict[str, Any]) -> tuple[int, str, int, float] | None:
    """(pair, criterion, side, seconds) of what the page sent, or None when it is no answer."""
    pair, criterion, side, seconds = (given.get(name) for name in ("pair", "criterion", "side", "seconds"))
    if type(pair) is not int or not isinstance(criterion, str) or type(side) is not int or side not in (0, 1, 2):
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= 1e6:
        return None
    return pair, criterion, side, float(seconds)


def byte_range(header: str, size: int) -> tuple[int, int] | tuple[()] | None:
    """First and last byte that a Range header asks for (RFC 9110, 14.1.2), both inclusive.

    () where the file has none of them; None where the whole file is to be sent: several ranges, or another unit.

    >>> byte_range("bytes=0-3", 10), byte_range("bytes=4-", 10), byte_range("bytes=-3", 10), byte_range("bytes=10-", 10)
    ((0, 3), (4, 9), (7, 9), ())
    """
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size - 1) if int(last) and size else ()
    if last and int(last) < int(first):
        return None
    return (int(first), min(int(last), size - 1) if last else size - 1) if int(first) < size else ()


__all__ = ["Server", "byte_range"]
