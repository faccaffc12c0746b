import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import BadStatusLine, InvalidURL
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from sqlalchemy import text

from app import watch_alarms
from app.watch_alarms import Program, Webhook, alarm_sentence, send_alarms
from app.watch_store import WatchStore
from app.watching import Watch
from ood.monitoring.report import Alarm, Kind
from ood.monitoring.settings import Settings
from tests.app.watch_helpers import WORKSPACE, arrivals


@pytest.fixture
def watch(tmp_path):
    """A stream with one alarm: its images come differently from the start."""
    store = WatchStore.open(f"sqlite:///{tmp_path / 'watch.sqlite'}")
    settings = Settings(thresholds=40, audit_floor=1e-6, audit_ceiling=1e-6)
    watch = Watch.create(store, WORKSPACE, "door", settings)
    watch.arrive(arrivals(np.random.default_rng(3).normal(-1.5, 1, 400)))
    assert [alarm.kind for alarm in watch.alarms()] == [Kind.DRIFT]
    return watch


class Server:
    """Takes POSTs, and answers with a status that a test sets."""

    def __init__(self):
        self.bodies, self.status, outer = [], 200, self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.bodies.append((self.headers["Content-Type"], json.loads(body)))
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_webhook_gets_an_alarm_once(watch, server):
    channels = [Webhook(server.url)]
    assert send_alarms(watch, channels) == [] and send_alarms(watch, channels) == []
    assert send_alarms(Watch.open(watch.store, WORKSPACE, watch.number), channels) == []
    ((kind, body),) = server.bodies
    (alarm,) = watch.alarms()
    assert kind == "application/json"
    assert body["stream"] == "door" and body["kind"] == "drift" and body["item"] == alarm.item
    assert body["threshold"] == alarm.threshold and body["since"] is None and body["text"]
    # A second channel gets it too.
    server.bodies.clear()
    assert send_alarms(watch, [*channels, Webhook(f"{server.url}&more")]) == []
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_is_not_taken_is_said_and_tried_again(watch, server, status):
    channels = [Webhook(server.url)]
    server.status = status
    for _ in range(2):
        (problem,) = send_alarms(watch, channels)
        assert str(status) in problem and "tried again" in problem and "secret" not in problem
    server.status = 200
    assert send_alarms(watch, channels) == [] and send_alarms(watch, channels) == []
    assert len(server.bodies) == 3


def test_nobody_there_or_too_slow_stops_nothing(watch, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (problem,) = send_alarms(watch, [Webhook("http://127.0.0.1:9/")])
    assert "127.0.0.1 did not take" in problem
    monkeypatch.setattr(watch_alarms, "_TIMEOUT_S", 0.2)
    sleeper = Program((sys.executable, "-c", "import time; time.sleep(9)"))
    (problem,) = send_alarms(watch, [sleeper])
    assert "timed out" in problem


def test_addresses_that_are_no_webhooks_are_refused():
    for address in ("file:///etc/passwd", "ftp://host/x", "gopher://x", "http://", "nonsense"):
        with pytest.raises(ValueError, match="http:// or https://"):
            Webhook(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://host:port-secret/", "http://host:99999/?secret", "http://host:0/secret",
        "http://host/secret\r\nX: y", "http://host/secret\x00", "http://host/a secret",
        "http://host/\u00e4secret", "http://me:secret@host/", "http://[::1/secret",
        f"http://{'a' * 64}/secret", "http://a..b/secret", "https://:443/secret",
    ],
)  # fmt: skip
def test_addresses_that_could_never_be_sent_to_are_refused_at_once(address):
    with pytest.raises(ValueError, match="A webhook's address") as refused:
        Webhook(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "error",
    [
        InvalidURL("nonnumeric port: 'secret'"), UnicodeError("secret"), BadStatusLine("secret"),
    ],
)  # fmt: skip
def test_no_error_tells_the_secret_of_an_address(watch, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(watch_alarms.urllib.request.OpenerDirector, "open", fail)
    (problem,) = send_alarms(watch, [Webhook("https://host:8080/secret")])
    assert "host did not take" in problem and "secret" not in problem


def test_a_program_needs_a_name():
    for arguments in ((), ("",), (" ", "x")):
        with pytest.raises(ValueError, match="name a program"):
            Program(arguments)


def test_a_program_gets_json_and_no_shell_reads_its_arguments(watch, tmp_path):
    out = tmp_path / "got"
    code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + sys.stdin.read())"
    program = Program((sys.executable, "-c", code, str(out), "$HOME; `id`"))
    assert send_alarms(watch, [program]) == [] and send_alarms(watch, [program]) == []
    said = out.read_text()
    assert said.startswith("$HOME; `id`{") and json.loads(said[11:])["kind"] == "drift"


def test_a_program_that_fails_says_what_it_said(watch):
    failing = Program((sys.executable, "-c", "import sys; sys.exit('the bell is broken')"))
    (problem,) = send_alarms(watch, [failing])
    assert "status 1" in problem and "the bell is broken" in problem
    (problem,) = send_alarms(watch, [Program(("no-such-program",))])
    assert "no-such-program" in problem


class Slow:
    """A channel that takes an alarm after everybody has asked for it."""

    address = "slow"

    def __init__(self, senders):
        self.sent, self.barrier = [], threading.Barrier(senders + 1)

    def send(self, message):
        self.barrier.wait(timeout=20)
        self.sent.append(message)


def test_several_processes_send_it_once(watch):
    slow, n = Slow(1), 4
    watches = [Watch.open(watch.store, WORKSPACE, watch.number) for _ in range(n)]
    with ThreadPoolExecutor(n) as pool:
        found = [pool.submit(send_alarms, one, [slow]) for one in watches]
        slow.barrier.wait(timeout=20)
        assert [future.result() for future in found] == [[]] * n
    assert len(slow.sent) == 1


def test_one_that_was_killed_while_it_sent_is_relieved(watch):
    stream, sent = watch.stream, []

    class Listed:
        address = "list"

        def send(self, message):
            sent.append(message)

    assert watch.store.claim_alarm(stream, "list", 0)  # and then it is killed
    send_alarms(watch, [Listed()])
    assert not sent
    with watch.store.engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET claimed = claimed - 300"))
    send_alarms(watch, [Listed()])
    send_alarms(watch, [Listed()])
    assert len(sent) == 1


def test_an_unforeseen_error_of_a_channel_leaves_the_alarm_to_the_next(watch):
    class Broken:
        address = "broken"

        def send(self, message):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        send_alarms(watch, [Broken()])
    assert watch.store.claim_alarm(watch.stream, "broken", 0)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_sentence(kind):
    said = alarm_sentence(Alarm(kind, 1_600, 1_480, 0.5), Settings(miss_limit=0.125))
    assert said.endswith("noticed at image 1,600.")
    if kind is Kind.MISSES:
        assert said.startswith("More than 12.5% of unknown images") and "1,480" in said
