"""Servers in this process, on free ports, and clients of theirs."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from reformer.serving.server import ModelServer
from reformer.serving.service import Service
from tests.training.conftest import _own_cache

__all__ = ["_own_cache"]


class Client:
    """Asks a server; gives status and JSON."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self._place = urlsplit(server.url).netloc

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._place, timeout=300)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, Any]:
        status, content = self.ask("GET", path)
        assert status == 200, content
        return content

    def post(self, path: str, **request: Any) -> dict[str, Any]:
        status, content = self.ask("POST", path, json.dumps(request).encode())
        assert status == 200, content
        return content

    def refused(self, path: str, **request: Any) -> str:
        """What is wrong with a request whose status is 400."""
        status, content = self.ask("POST", path, json.dumps(request).encode())
        assert (status, list(content)) == (400, ["error"])
        assert "\n" not in content["error"]
        return str(content["error"])


@contextmanager
def served(service: Service) -> Iterator[Client]:
    """A server of it, in a thread."""
    server = ModelServer("127.0.0.1", 0)
    server.listen(service)
    running = threading.Thread(target=server.run)
    running.start()
    try:
        yield Client(server)
    finally:
        server.stop()
        running.join(30)
        assert not running.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[[Service], Client]]:
    """Starts servers, which stop after the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda service: stack.enter_context(served(service))
