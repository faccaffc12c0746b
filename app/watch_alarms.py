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
from ood.monitoring.settings import Settings

_TIMEOUT_S = 10.0
_SAID = 200


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
        ValueError: for an address that no alarm can go to. Neither this nor any other message names
            more of it than the host, for the rest may hold a secret.
    """

    address: str

    def __post_init__(self) -> None:
        if wrong := _wrong_address(self.address):
            raise ValueError(f"A webhook's address {wrong}.")

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
            host = urlsplit(self.address).hostname
            # Only what the system says names no address.
            said = str(error) if isinstance(error, OSError) else type(error).__name__
            raise NotSent(f"The webhook at {host} did not take an alarm: {said}.") from None


def _wrong_address(address: str) -> str:
    """What an address of a webhook must be, where it is not; else empty."""
    if not all("!" <= character <= "~" for character in address):
        return "has no spaces and only ASCII characters; write others as %20 and the like"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:  # its words name parts of the address
        return "has a host, and then perhaps a colon and a port from 1 to 65535"
    if parts.scheme not in ("http", "https") or not host:
        return "begins with http:// or https:// and a host"
    if port == 0:
        return "has a port from 1 to 65535"
    if "@" in parts.netloc:
        return "has no name or password before the host; give a token behind it"
    return ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is sent on becomes a GET, and the alarm is lost without a word."""

    def redirect_request(self, *_: Any) -> None:
        """Take no redirect; it is then an error, which says its status."""


@dataclass(frozen=True)
class Program:
    """Alarms as JSON to the standard input of a program; ten seconds to take one.

    Attributes:
        arguments: its name and what follows it; no shell reads them.

    Raises:
        ValueError: when there is no name.
    """

    arguments: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.arguments or not self.arguments[0].strip():
            raise ValueError("The command that takes alarms is empty; name a program.")

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
    return {"stream": watch.name, "text": alarm_sentence(alarm, watch.settings)} | alarm_record(
        alarm
    )


def alarm_record(alarm: Alarm) -> dict[str, Any]:
    """Its fields as plain values; `since` is null where it is not known."""
    return {
        "kind": alarm.kind.value, "item": alarm.item, "since": alarm.since or None,
        "threshold": alarm.threshold,
    }  # fmt: skip


def alarm_sentence(alarm: Alarm, settings: Settings) -> str:
    """What it says, in words; those of the page."""
    noticed = f"noticed at image {alarm.item:,}"
    since = f"since about image {max(1, alarm.since):,}, {noticed}"
    match alarm.kind:
        case Kind.MISSES:
            limit = _percent(settings.miss_limit)
            return f"More than {limit} of unknown images slipped through {since}."
        case Kind.FALSE_ALARMS:
            limit = _percent(settings.false_alarm_limit)
            return f"More than {limit} of known images were flagged {since}."
        case Kind.DRIFT:
            return f"Other images came than the normal ones it was calibrated on, {noticed}."


def _percent(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%")
