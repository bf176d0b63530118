"""The HTTP part: statuses, turns, logs and how it ends."""

import json
import socket
import threading
import time

import pytest
import torch

from reformer.errors import UserError
from reformer.serving import server as module
from reformer.serving.requests import Sequences
from reformer.serving.server import ModelServer
from reformer.serving.service import Answer, Service, Task
from tests.serving.conftest import Client


class Counting:
    """A task that takes a while, and notes how many of it run at once."""

    def __init__(self, seconds=0.0):
        self.seconds, self.running, self.most = seconds, 0, 0
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, request):
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        assert self.may_end.wait(300)
        self.running -= 1
        if request.sequences == ["fault"]:
            raise RuntimeError("a fault\nof ours")
        return Answer({"results": [len(one) for one in request.sequences]}, 7)

    def service(self):
        model = torch.nn.Linear(2, 3)
        model.device = torch.device("cpu")
        return Service("a test", model, {"count": Task("counts", Sequences, self)}, 100, {})


@pytest.fixture
def client(serve):
    return serve(Counting().service())


def body(*sequences):
    return json.dumps({"sequences": sequences}).encode()


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nothing", 404, "/nothing: there is GET /, GET /health, POST /count"),
        ("POST", "/count/", 404, "/count/: there is "),
        ("GET", "/count", 405, "GET /count: expected POST"),
        ("POST", "/", 405, "POST /: expected GET"),
        ("PUT", "/count", 405, "PUT /count: expected POST"),
        ("DELETE", "/health", 405, "DELETE /health: expected GET"),
        ("BREW", "/count", 501, "Unsupported method ('BREW')"),
    ],
)
def test_paths_and_methods(client, method, path, status, message):
    found, content = client.ask(method, path, body("A"))
    assert (found, list(content)) == (status, ["error"])
    assert content["error"].startswith(message)
    assert client.get("/health?now") == {"status": "ok"}


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "the body is not JSON: "),
        (b'{"sequences": ["A"', "the body is not JSON: "),
        (b'{"sequences": ["\xff"]}', "the body is not JSON: "),
        (b'{"sequences": ["\\ud800"]}', "the body is not JSON: "),
        (b"[" * 100_000, "the body is not JSON: "),
        (b'["A"]', "the body is not a JSON object: expected {...}"),
        (b'{"sequences": [NaN]}', "the body is not JSON: "),
    ],
)
def test_what_is_not_json(client, sent, message):
    status, content = client.ask("POST", "/count", sent)
    assert (status, list(content)) == (400, ["error"])
    assert content["error"].startswith(message)
    assert "\n" not in content["error"]


def test_a_body_without_a_length(client):
    status, content = client.ask("POST", "/count", iter([body("A")]), **{"Transfer-Encoding": "chunked"})
    assert (status, content) == (411, {"error": "expected Content-Length"})
    status, _ = client.ask("POST", "/count", body("A"), **{"Content-Length": "1e3"})
    assert status == 400


def test_a_body_that_is_too_long(serve, monkeypatch):
    monkeypatch.setattr(module, "_FEWEST_BODY_BYTES", 1000)
    client = serve(Counting().service())
    assert client.get("/")["max_body_bytes"] == 1000
    status, content = client.ask("POST", "/count", body("A" * 20_000_000))
    assert (status, content) == (413, {"error": "20,000,019 bytes: expected 1,000 at most"})
    assert client.post("/count", sequences=["AC"]) == {"results": [2]}


def test_a_fault_of_ours_is_an_answer_and_the_server_lives_on(client, capfd):
    status, content = client.ask("POST", "/count", body("fault"))
    assert (status, content) == (500, {"error": "a fault of ours"})
    assert client.post("/count", sequences=["AC", "A"]) == {"results": [2, 1]}
    assert "RuntimeError: a fault" in capfd.readouterr().err


def test_a_line_for_every_request(client, capfd):
    client.post("/count", sequences=["A"])
    for sent, answer in (
        (b"GET /a%0A\x1b[1m HTTP/1.0", b"there is GET /,"),
        (b"nonsense", b"Bad request syntax"),
    ):
        with socket.create_connection(("127.0.0.1", client.server.server_port)) as raw:
            raw.sendall(sent + b"\r\n\r\n")
            assert answer in b"".join(iter(lambda: raw.recv(4096), b""))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("POST /count 200 7 tokens 0.")
    assert lines[1].startswith("GET /a%0A\\x1b[1m 404 0 tokens 0.")
    assert lines[2].endswith(" 400")


def test_clients_wait_for_their_turn(serve):
    count = Counting(0.05)
    client = serve(count.service())
    found = []

    def ask(number):
        found.append((number, client.post("/count", sequences=["A" * number])["results"]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    assert client.get("/health") == {"status": "ok"}  # which waits for nobody
    for thread in threads:
        thread.join()
    assert sorted(found) == [(number, [number]) for number in range(1, 7)]
    assert count.most == 1


def test_a_connection_takes_several_requests(client):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=30)
    for number in (1, 2, 3):
        connection.request("POST", "/count", body("A" * number))
        assert json.loads(connection.getresponse().read()) == {"results": [number]}
    connection.close()


def test_stopping_finishes_the_request_in_progress_alone():
    count = Counting()
    count.may_end.clear()
    server = ModelServer("127.0.0.1", 0)
    server.listen(count.service())
    running = threading.Thread(target=server.run)
    running.start()
    client, found = Client(server), []
    idle = socket.create_connection(("127.0.0.1", server.server_port))
    threads = [
        threading.Thread(target=lambda: found.append(client.ask("POST", "/count", body("ACG"))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while (count.running, server._num_answering, server._jobs.qsize()) != (1, 3, 2):
        time.sleep(0.01)
    server.stop()
    count.may_end.set()
    for thread in (*threads, running):
        thread.join(300)
        assert not thread.is_alive()
    idle.close()
    refused = (503, {"error": "the server is stopping"})
    assert sorted(found) == [(200, {"results": [3]}), refused, refused]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.server_port))


def test_a_port_that_is_taken(client):
    port = client.server.server_port
    with pytest.raises(UserError, match=rf"^--host 127.0.0.1 --port {port}: Address already in use$"):
        ModelServer("127.0.0.1", port)
    with pytest.raises(UserError, match=r"^--host 192.0.2.1 --port 0: "):  # of no machine
        ModelServer("192.0.2.1", 0)
