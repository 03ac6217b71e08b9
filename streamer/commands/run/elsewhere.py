"""`run --inference`: who runs the models, when that is not this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from engines.base import Engine, EngineId, UsageError
from streamer.config import Config
from streamer.inference.client import InferenceClient
from streamer.inference.fleet_watch import AUTO, RAY, FleetInference
from streamer.inference.kserve import SCHEME, KserveInference
from streamer.records import InferenceStatus

Say = Callable[[str], None]


class Inference(Protocol):
    """What runs models on other machines; any thread calls it."""

    def engine(self, id_: EngineId, local: Engine) -> Engine:
        """The engine of that id elsewhere, which falls back to `local`."""

    def status(self) -> InferenceStatus: ...

    def close(self) -> None: ...


def open_inference(config: Config, say: Say) -> Inference | None:
    """What `--inference` names; None where nothing does. UsageError for addresses and keys that can't be used."""
    if config.inference is None:
        if config.server_key is not None:
            raise UsageError("--server-key: got no --inference, expected the address of the servers it is the key of")
        return None
    if config.inference.partition("://")[0] == RAY:
        address = config.inference.removeprefix(RAY).removeprefix("://") or AUTO
        return FleetInference(_client(config, (), say), address, say)
    endpoints = list(dict.fromkeys(part.strip() for part in config.inference.split(",") if part.strip()))
    if not endpoints:
        raise UsageError(f"--inference {config.inference!r}: got no address, expected ENDPOINT[,ENDPOINT...]")
    if any(endpoint.startswith(SCHEME) for endpoint in endpoints):
        if len(endpoints) > 1:
            raise UsageError(
                f"--inference {config.inference}: got {len(endpoints)} addresses, expected one with kserve://: "
                "that of what balances the load of its servers"
            )
        if config.server_key is not None:
            raise UsageError(f"--server-key with {endpoints[0]}: got a key, expected none: it is plain HTTP")
        return KserveInference(endpoints[0], insecure=config.insecure, say=say)
    return _client(config, endpoints, say)


def _client(config: Config, endpoints: Sequence[str], say: Say) -> InferenceClient:
    return InferenceClient(
        endpoints,
        insecure=config.insecure,
        keys=config.keys if config.server_key is not None else None,
        server_key=config.server_key,
        say=say,
    )
