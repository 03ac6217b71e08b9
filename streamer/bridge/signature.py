"""Signatures of webhooks as the Standard Webhooks specification has them (symmetric, `v1`). No clock, no socket.

Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, "Signature scheme" and "Webhook
headers". Every library of that project verifies them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from engines.base import UsageError

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""What a secret may have: 192 to 512 bits."""


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """Signs with every key: two while a receiver goes over from one to the other."""

    keys: Sequence[bytes]

    def headers(self, message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
        """`message_id` is the same at every attempt and has no full stop, `timestamp_s`, Unix time, is that of
        the attempt."""
        signed = f"{message_id}.{timestamp_s}.".encode() + body
        signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self.keys]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }


def signer_of(text: str) -> Signer:
    """Of secrets `whsec_BASE64`, one a line. UsageError, which does not show them, for anything else."""
    keys = []
    for line in text.split():
        try:
            key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not line.startswith(PREFIX) or len(key) not in SECRET_BYTES:
            raise UsageError(
                f"the webhook's secret: got what is none, expected {PREFIX} and the base64 of 24 to 64 random bytes,"
                f" such as: echo {PREFIX}$(openssl rand -base64 32)"
            )
        keys.append(key)
    return Signer(keys)
