"""The labelling page over HTTP, on this machine alone: the page, its state, answers, and what a pair is made of.

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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halign_bench.prefs.sitting import Sitting, WrongQuestionError

PAGES = {
    "": ("page.html", "text/html"), "page.css": ("page.css", "text/css"), "page.js": ("page.js", "text/javascript"),
}  # fmt: skip
KINDS = {".mp4": "video/mp4", ".png": "image/png"}
MAX_BODY = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src blob:; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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


class Given(BaseModel):
    """What the page sends as an answer; `side` 0 is a tie."""

    model_config = ConfigDict(strict=True, extra="forbid")

    pair: int
    criterion: str
    side: int = Field(ge=0, le=2)
    seconds: float = Field(ge=0, le=1e6)


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
        elif (match := re.fullmatch(r"pair/([0-9]{1,9})/(1|2|reference)", place)) is not None:
            self._part(int(match[1]), match[2])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if (place := self._place()) is None:
            return
        if place not in ("answer", "undo"):
            return self._refuse(HTTPStatus.NOT_FOUND, "nothing can be sent there")
        if (body := self._body()) is None:
            return
        sitting = self.server.sitting
        with self.server.turn:
            try:
                if place == "undo":
                    sitting.undo()
                else:
                    given = Given.model_validate_json(body)
                    sitting.answer(given.pair, given.criterion, given.side, given.seconds)
            except ValidationError:
                return self._refuse(HTTPStatus.BAD_REQUEST, "that is no answer")
            except WrongQuestionError:
                return self._send_json({**sitting.state(), "error": "that was answered already"}, HTTPStatus.CONFLICT)
            except OSError as problem:
                text = f"the answer could not be kept: {problem.strerror or problem}"
                return self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, text)
            self._send_json(sitting.state())

    def _place(self) -> str | None:
        """What is asked for, below the secret; None when that, or the host, is wrong, which is answered here."""
        port = self.server.server_port
        hosts = f"127.0.0.1:{port}", f"localhost:{port}"
        # A page elsewhere whose name is made to lead to this machine sends that name; any other page sends its origin.
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in hosts or origin not in (None, *(f"http://{host}" for host in hosts)):
            self._refuse(HTTPStatus.FORBIDDEN, "this host is not served")
            return None
        _, token, *rest = [*self.path.split("?")[0].split("/", 2), ""]
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "use the whole address that the command printed")
            return None
        return rest[0]

    def _body(self) -> bytes | None:
        """What was sent; None when it is too long, or its length is not told, which is answered here."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an answer has at most {MAX_BODY} bytes")
            return None
        return self.rfile.read(int(length))

    def _part(self, number: int, name: str) -> None:
        """The video of a side, or the reference, of a pair."""
        sitting, session = self.server.sitting, self.server.sitting.session
        if number >= len(session.questions):
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such pair")
        prompt = session.prompts[session.questions[number].prompt]
        shown = sitting.shown(number)
        file = prompt.reference if name == "reference" else prompt.candidates[shown[int(name) - 1]].video
        if (path := session.file(file)) is None:
            return self._refuse(HTTPStatus.NOT_FOUND, f"{file} is gone; run `halign-bench prefs sample` again")
        self._send(path.read_bytes(), KINDS[path.suffix])

    def _send_json(self, document: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(document).encode(), "application/json", status)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # what was sent may be unread, and would be taken for the next request
        self._send_json({"error": text}, status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if self.close_connection:
            self.send_header("Connection", "close")
        try:
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # the page went on to another pair
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Addresses hold the secret: they are not written anywhere."""


__all__ = ["Server"]
