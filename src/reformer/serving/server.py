"""HTTP around a service: JSON in, JSON out, one request at a time on the model while others wait.

Connections have threads of their own, which read and write; the model runs in the thread that calls `run`. In
`reformer serve` that is the main thread, so that torch keeps one pool of threads and one arena of memory, and
Ctrl-C, pressed a second time, can break off what the model does.
"""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from typing import Any

from reformer.errors import UserError
from reformer.serving.service import Answer, Content, Service

_FEWEST_BODY_BYTES = 64 << 20
_SECONDS_FOR_LAST_ANSWERS = 10.0
_SECONDS_TO_STOP = 0.05
_PIECE = 1 << 18

Job = tuple["Future[Answer]", Callable[[], Answer]]


class RefusedError(Exception):
    """A request that gets no answer: the status and one line that says why."""

    def __init__(self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class ModelServer(ThreadingHTTPServer):
    """Takes an address at once, and connections from `listen` on.

    Args:
        host: a name or an address of this machine.
        port: 0 for any free one.

    Raises:
        UserError: the address cannot be had.
    """

    daemon_threads = True  # those of idle connections are not waited for
    service: Service

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._stopping = False
        self._num_answering, self._counting = 0, threading.Lock()
        with _address_errors(host, port):
            super().__init__((host, port), _Handler, bind_and_activate=False)
            try:
                self.server_bind()
            except BaseException:
                self.server_close()
                raise

    def server_bind(self) -> None:
        """Binds without asking a name server what this machine is called, as HTTPServer would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """Where the server is."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}"

    @property
    def max_body(self) -> int:
        """Bytes of the longest body: for several of the longest sequences."""
        return max(_FEWEST_BODY_BYTES, 8 * self.service.max_length)

    def listen(self, service: Service) -> None:
        """Lets clients connect; they are answered once `run` is called."""
        self.service = service
        with _address_errors(self.server_name, self.server_port):
            self.server_activate()

    def run(self) -> None:
        """Answers until `stop` is called; then the request in progress is answered, and none that waits."""
        accepting = threading.Thread(target=self.serve_forever, args=(_SECONDS_TO_STOP,), daemon=True)
        accepting.start()
        try:
            while not self._stopping:
                if (job := self._jobs.get()) is not None:
                    self._do(job)
        finally:
            self._stopping = True
            self.shutdown()
            self._finish_answers()
            self.server_close()

    def stop(self) -> None:
        """Ends `run`; to be called from any thread, or from the handler of a signal."""
        self._stopping = True
        self._jobs.put(None)

    def in_turn(self, work: Callable[[], Answer]) -> Answer:
        """Called by the thread of a connection: waits until the model is free, and for the answer.

        Raises:
            RefusedError: the server stops.
        """
        future: Future[Answer] = Future()
        self._jobs.put((future, work))
        return future.result()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around a request, so that `run` can wait until its answer is out."""
        with self._counting:
            self._num_answering += 1
        try:
            yield
        finally:
            with self._counting:
                self._num_answering -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def _do(self, job: Job) -> None:
        future, work = job
        if self._stopping:
            future.set_exception(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping"))
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):  # Ctrl-C, pressed again
                raise

    def _finish_answers(self) -> None:
        end = time.monotonic() + _SECONDS_FOR_LAST_ANSWERS
        while self._num_answering and time.monotonic() < end:
            try:
                job = self._jobs.get(timeout=0.02)
            except Empty:
                continue
            if job is not None:
                self._do(job)


@contextmanager
def stopped_by_signals(server: ModelServer) -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM stop the server; the second one acts as it ever does."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: Any) -> None:
        restore()
        server.stop()

    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


@contextmanager
def _address_errors(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}") from error


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "reformer"
    sys_version = ""
    timeout = 60  # seconds without a byte
    server: ModelServer

    def do_GET(self) -> None:
        """Answers any method; `_answer` says which there are."""
        started = time.perf_counter()
        with self.server.answering():
            num_tokens = 0
            try:
                answer = self._answer()
                status, content, headers = HTTPStatus.OK, answer.content, {}
                num_tokens = answer.num_tokens
                body = _json(content)
            except RefusedError as refusal:
                status, body, headers = refusal.status, _error(refusal), refusal.headers
            except UserError as error:
                status, body, headers = HTTPStatus.BAD_REQUEST, _error(error), {}
            except ConnectionError:
                raise
            except Exception as error:  # ours: the server lives on
                traceback.print_exc()
                status, body, headers = HTTPStatus.INTERNAL_SERVER_ERROR, _error(error), {}
            self._send(status, body, headers)
            self._log(status, f" {num_tokens:,} tokens {time.perf_counter() - started:.3f} s")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _answer(self) -> Answer:
        service, path = self.server.service, self.path.split("?")[0]
        body = self._body()
        gets: dict[str, Callable[[], Content]] = {
            "/": lambda: {**service.describe(), "max_body_bytes": self.server.max_body},
            "/health": lambda: {"status": "ok"},
        }
        name = path.removeprefix("/")
        if path not in gets and name not in service.tasks:
            there = ["GET /", "GET /health", *(f"POST /{task}" for task in service.tasks)]
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{path}: there is {', '.join(there)}")
        method = "GET" if path in gets else "POST"
        if self.command != method:
            message = f"{self.command} {path}: expected {method}"
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, message, {"Allow": method})
        if path in gets:
            return Answer(gets[path](), 0)
        request = service.read(name, body)
        return self.server.in_turn(lambda: service.answer(name, request))

    def _body(self) -> bytes:
        """The whole body; what is too long is read, and forgotten, so that the client hears why."""
        given = self.headers.get("Content-Length", "0" if self.command != "POST" else "")
        if "Transfer-Encoding" in self.headers or not given:
            self.close_connection = True
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "expected Content-Length")
        if not (given.isascii() and given.isdigit()):
            self.close_connection = True
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"Content-Length {given!r}: expected bytes")
        length = int(given)
        if length > self.server.max_body:
            self.close_connection = True
            while length > 0 and (piece := self.rfile.read(min(length, _PIECE))):
                length -= len(piece)
            most = f"expected {self.server.max_body:,} at most"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{int(given):,} bytes: {most}")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError
        return body

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            for start in range(0, len(body), _PIECE):  # the time that a client may take is of each
                self.wfile.write(memoryview(body)[start : start + _PIECE])

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers what is not HTTP, or a method that there is not, as JSON too."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(status, _error(message or status.phrase), {})
        self._log(status)

    def _log(self, status: HTTPStatus, rest: str = "") -> None:
        what = f"{self.command or '-'} {getattr(self, 'path', '-')}".encode("unicode_escape").decode()
        sys.stderr.write(f"{what} {status.value}{rest}\n")
        sys.stderr.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: every request has its line."""


def _json(content: Content) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


def _error(error: Exception | str) -> bytes:
    message = " ".join(str(error).split()) or type(error).__name__
    return _json({"error": message}) + b"\n"
