"""One file from one of several addresses, through whatever a network does on the way.

What arrives goes into a part file, hashed as it comes. An interrupted transfer goes on where it stopped (HTTP Range,
RFC 9110, section 14), also in another process and from another address: only the hash says whether the whole is
right, and if it is not, bytes kept from before are dropped and fetched once more. A file whose hash nobody knows is
not pieced together: it comes in one transfer or not at all.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from halign_bench import __version__
from halign_bench.assets.archive import MAX_BYTES
from halign_bench.assets.hashing import CHUNK
from halign_bench.assets.part_file import PartFile
from halign_bench.errors import RequestError

Report = Callable[[int, "int | None"], None]  # bytes that are there, and bytes of the whole file if known
Say = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """When a transfer counts as stalled, and how often and after how long it is tried again.

    stall     seconds without an answer or a byte, or at less than `least` bytes a second on average
    attempts  in a row that brought less than `progress` bytes
    pause     seconds before the second attempt, doubled before each further one, at most `longest`
    """

    stall: float = 30.0
    least: int = 1024
    attempts: int = 4
    progress: int = 2**16
    pause: float = 1.0
    longest: float = 60.0


class Refused(Exception):
    """This address will not give the file; another one may."""


class Again(Exception):
    """A transfer that is worth another attempt, after `wait` seconds where the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    urls: Sequence[str],
    path: Path,
    size: int | None,
    sha256: str | None,
    *,
    http: bool = False,
    patience: Patience | None = None,
    report: Report = lambda done, total: None,
    say: Say = lambda text: None,
) -> str:
    """Fetches one file to `path` from the first of `urls` that gives it, and returns its sha256.

    `path` is a part file: what an earlier call left in it is used. `size` in bytes and `sha256` are what is
    published, or None. Redirects are followed to https alone, to plain http only with `http`. `report` may raise to
    stop; what has arrived stays. Raises `RequestError`, one sentence with what each address did.
    """
    refusals = []
    with PartFile(path) as part:
        transfer = _Transfer(part, size, sha256, http, patience or Patience(), report, say)
        for url in urls:
            try:
                return transfer.run(url)
            except Refused as refusal:
                refusals.append(f"{urlsplit(url).hostname} {refusal}")
    raise RequestError("; ".join(refusals))


@dataclass
class _Transfer:
    part: PartFile
    size: int | None
    sha256: str | None
    http: bool
    patience: Patience
    report: Report
    say: Say
    opener: Any = field(init=False)

    def __post_init__(self) -> None:
        self.opener = urllib.request.build_opener(_Redirects(self.http))

    def run(self, url: str) -> str:
        """Attempts until the file is whole and right; its sha256. Raises `Refused`."""
        failures, furthest, anew = 0, self.part.size, False
        while True:
            if self.sha256 is None:
                self.part.restart()
            try:
                if self.size is None or self.part.size != self.size:
                    self._receive(url)
            except Again as problem:
                advanced = self.part.size >= furthest + self.patience.progress
                failures = 1 if advanced else failures + 1
                furthest = max(furthest, self.part.size)
                if failures >= self.patience.attempts:
                    raise Refused(f"{problem}, {failures} times in a row") from None
                wait = min(problem.wait or self.patience.pause * 2 ** (failures - 1), self.patience.longest)
                self.say(f"{urlsplit(url).hostname} {problem}; trying again in {wait:.0f} s")
                time.sleep(wait)
                continue
            found = self.part.digest.hexdigest()
            if self.sha256 in (None, found):
                return found
            pieced = self.part.pieced
            self.part.restart()
            if anew or not pieced:
                raise Refused(f"gave another file, with sha256 {found} instead of {self.sha256}")
            anew, furthest = True, 0
            self.say("what was kept from before does not fit; fetching all of it")

    def _receive(self, url: str) -> None:
        """One transfer, to the end of the file. Raises `Again` or `Refused`; what arrived is in the part file."""
        headers = {"User-Agent": f"halign-bench/{__version__}", "Accept-Encoding": "identity"}
        if self.part.size:
            headers["Range"] = f"bytes={self.part.size}-"
        try:
            request = urllib.request.Request(url, headers=headers)
            with self.opener.open(request, timeout=self.patience.stall) as response:
                total = self._whole_size(response)
                self._drain(response, total)
        except urllib.error.HTTPError as problem:
            with problem:
                self._explain(problem)
        except TimeoutError:
            raise Again(f"sent nothing for {self.patience.stall:g} s") from None
        except urllib.error.URLError as problem:
            if isinstance(problem.reason, ssl.SSLCertVerificationError):
                raise Refused(f"has no valid certificate ({problem.reason.verify_message})") from None
            raise Again(f"cannot be reached ({_reason(problem.reason)})") from None
        except (OSError, http.client.HTTPException) as problem:
            raise Again(f"broke the connection off ({_reason(problem)})") from None
        except ValueError as problem:
            raise Refused(f"answers what is no HTTP ({problem})") from None
        wanted = total if self.size is None else self.size
        if wanted is not None and self.part.size < wanted:
            raise Again(f"ended after {self.part.size} of {wanted} bytes")

    def _whole_size(self, response: Any) -> int | None:
        """Bytes of the whole file by the response's headers; makes the part file ready for what will come."""
        if response.headers.get_content_type() == "text/html":
            raise Refused("answers with a web page instead of the file")
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdecimal() else None
        if response.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not span or int(span[1]) != self.part.size:
                self.part.restart()
                raise Again("gave another range than was asked for")
            self.part.pieced = True
            total = int(span[2]) if span[2] != "*" else None
        elif self.part.size:  # a server that does not know ranges sends everything
            self.part.restart()
        if self.size is not None and total not in (None, self.size):
            raise Refused(f"offers {total} bytes, the published file has {self.size}")
        if self.sha256 is None and total is None and not response.chunked:
            raise Refused("does not say how long the file is, so that a part could pass for the whole")
        return total

    def _drain(self, response: Any, total: int | None) -> None:
        most = MAX_BYTES if self.size is None else self.size
        self.report(self.part.size, total)
        since, there = time.monotonic(), self.part.size
        while chunk := response.read1(CHUNK):
            if self.part.size + len(chunk) > most:
                self.part.restart()
                raise Refused(f"sends more than the {most} bytes expected")
            self.part.write(chunk)
            self.report(self.part.size, total)
            seconds, came = time.monotonic() - since, self.part.size - there
            if seconds >= self.patience.stall:
                if came < self.patience.least * seconds:
                    raise Again(f"sent only {came} bytes in {seconds:.0f} s")
                since, there = time.monotonic(), self.part.size

    def _explain(self, problem: urllib.error.HTTPError) -> None:
        if problem.code == 416:  # the file there is shorter than what we have of it: another one
            self.part.restart()
            raise Again("has no such range")
        answer = f"answers {problem.code} {problem.reason}".rstrip()
        if problem.code in (408, 425, 429) or problem.code >= 500:
            asked = problem.headers.get("Retry-After", "")
            raise Again(answer, float(asked) if asked.isdecimal() else None)
        raise Refused(answer)


def _reason(problem: object) -> str:
    return str(getattr(problem, "strerror", None) or problem or type(problem).__name__)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https alone, unless plain http was asked for."""

    def __init__(self, http: bool) -> None:
        self.allowed = ("https", "http") if http else ("https",)

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in self.allowed:
            raise Refused(f"leads to {newurl}, which is not https")
        # 308 is known to urllib from Python 3.11 on.
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


__all__ = ["Patience", "Report", "Say", "download"]
