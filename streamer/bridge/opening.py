"""From an address to its target. Only the client that it needs is imported."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from streamer.bridge.addresses import Address, Secrets
from streamer.bridge.base import Remark, Target
from streamer.interop.formats import needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    prefix: str = "leukostream"
    """First part of topics and subjects."""
    name: str
    """Of this bridge, the part behind it."""
    discovery: str | None = "homeassistant"
    """MQTT: Home Assistant's prefix; None: it is told nothing."""
    cells: bool = False
    """Pass cells on too, without their pictures."""
    state: Path
    """A folder for what has to survive a restart."""


def open_target(address: Address, secrets: Secrets, settings: Settings, remark: Remark) -> Target:
    """UsageError where its package is not here, and for what is no secret."""
    with needed(f"bridge {address}", "bridge"):
        if address.scheme in ("mqtt", "mqtts"):
            from streamer.bridge.mqtt import MqttTarget
            from streamer.bridge.mqtt_messages import Topics

            topics = Topics(settings.prefix, settings.name, settings.discovery)
            return MqttTarget(address, secrets, topics, cells=settings.cells, remark=remark)
        if address.scheme in ("nats", "natss"):
            from streamer.bridge.nats import NatsTarget

            return NatsTarget(address, secrets, settings.prefix, settings.name, cells=settings.cells, remark=remark)
        if address.scheme in ("kafka", "kafkas"):
            from streamer.bridge.kafka import KafkaTarget

            return KafkaTarget(address, secrets, settings.prefix, settings.name, cells=settings.cells)
        return _webhook(address, secrets, settings, remark)


def _webhook(address: Address, secrets: Secrets, settings: Settings, remark: Remark) -> Target:
    import httpx

    from streamer.bridge.signature import signer_of
    from streamer.bridge.webhook import TIMEOUT_S, WebhookTarget
    from streamer.bridge.webhook_outbox import WebhookOutbox

    signer = None if secrets.secret is None else signer_of(secrets.secret)
    if signer is None:
        remark(f"{address}: results are posted without a signature: give LEUKOSTREAM_BRIDGE_SECRET or --secret-file")
    client = httpx.AsyncClient(
        timeout=TIMEOUT_S,
        verify=secrets.tls() if address.is_encrypted else False,
    )
    outbox = WebhookOutbox(settings.state / f"webhook-{digest(str(address))}.sqlite", str(address))
    return WebhookTarget(address, outbox, signer, client, remark=remark)


def digest(*parts: str) -> str:
    """For the name of a file that belongs to these alone."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def default_name() -> str:
    """This machine's, as a part of a topic."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-") or "leukostream"


def default_state() -> Path:
    """systemd's StateDirectory, else the user's folder for state (XDG)."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "leukostream"
