"""Alarms that go out: each once through each channel, as soon as the channel takes it."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

from app.watching import Watch
from ood.monitoring.report import Alarm, Kind

_TIMEOUT_S = 10.0
_SAID = 200
_SENTENCES = {
    Kind.MISSES: "Too many unknown images are accepted, since about image {since:,}.",
    Kind.FALSE_ALARMS: "Too many known images are flagged, since about image {since:,}.",
    Kind.DRIFT: "Images come differently than the calibration images, noticed at image {item:,}.",
}


class NotSent(Exception):
    """An alarm that a channel did not take; the message says why."""


class Channel(Protocol):
    """Where alarms go."""

    @property
    def address(self) -> str:
        """Tells it from other channels."""
        ...

    def send(self, message: dict[str, Any]) -> None:
        """Send one alarm.

        Raises:
            NotSent: when it was not taken.
        """
        ...


@dataclass(frozen=True)
class Webhook:
    """Alarms as JSON by HTTP POST; ten seconds to take one, and nowhere else to send it on to.

    Attributes:
        address: http or https.

    Raises:
        ValueError: for another kind of address.
    """

    address: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("A webhook's address begins with http:// or https:// and a host.")

    def send(self, message: dict[str, Any]) -> None:
        """See `Channel.send`."""
        request = urllib.request.Request(
            self.address, json.dumps(message).encode(), {"Content-Type": "application/json"},
            method="POST",
        )  # fmt: skip
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=_TIMEOUT_S):
                pass
        except (OSError, HTTPException, ValueError) as error:
            host = urlsplit(self.address).hostname  # the rest may hold a secret
            raise NotSent(f"The webhook at {host} did not take an alarm: {error}.") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is sent on becomes a GET, and the alarm is lost without a word."""

    def redirect_request(self, *_: Any) -> None:
        """Take no redirect; it is then an error, which says its status."""


@dataclass(frozen=True)
class Program:
    """Alarms as JSON to the standard input of a program; ten seconds to take one.

    Attributes:
        arguments: its name and what follows it; no shell reads them.
    """

    arguments: tuple[str, ...]

    @property
    def address(self) -> str:
        """Tells it from other channels."""
        return json.dumps(self.arguments)

    def send(self, message: dict[str, Any]) -> None:
        """See `Channel.send`."""
        try:
            subprocess.run(
                self.arguments, input=json.dumps(message).encode(), capture_output=True,
                timeout=_TIMEOUT_S, check=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()[-_SAID:]
            raise NotSent(
                f"{self.arguments[0]} did not take an alarm: status {error.returncode}. {said}"
            ) from error
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise NotSent(f"{self.arguments[0]} did not take an alarm: {error}.") from error


def send_alarms(watch: Watch, channels: Sequence[Channel]) -> list[str]:
    """Send what has not gone out yet; what is not taken is tried again at the next call.

    Of several processes only one sends an alarm. One that is killed between sending an alarm and
    noting it sends it twice; none is lost.

    Returns:
        What went wrong, in sentences.

    Raises:
        StoreError: when it cannot be noted.
    """
    problems = []
    alarms = watch.alarms() if channels else []
    for channel in channels:
        sent = watch.store.sent_alarms(watch.stream, channel.address)
        for place, alarm in enumerate(alarms):
            if place in sent or not watch.store.claim_alarm(watch.stream, channel.address, place):
                continue
            taken = False
            try:
                channel.send(alarm_message(watch, alarm))
                taken = True
            except NotSent as problem:
                problems.append(f"{problem} It is tried again.")
            finally:
                watch.store.settle_alarm(watch.stream, channel.address, place, sent=taken)
            if not taken:
                break  # the channel is out of order; the next ones would wait for it too
    return problems


def alarm_message(watch: Watch, alarm: Alarm) -> dict[str, Any]:
    """An alarm for a program, and a sentence for a person."""
    return {"stream": watch.name, "text": alarm_sentence(alarm)} | alarm_record(alarm)


def alarm_record(alarm: Alarm) -> dict[str, Any]:
    """Its fields as plain values; `since` is null where it is not known."""
    return {
        "kind": alarm.kind.value, "item": alarm.item, "since": alarm.since or None,
        "threshold": alarm.threshold,
    }  # fmt: skip


def alarm_sentence(alarm: Alarm) -> str:
    """What it says, in words."""
    return _SENTENCES[alarm.kind].format(since=alarm.since, item=alarm.item)
