"""What Home Assistant is told of a source, so that its values appear by themselves. No socket.

Source: Home Assistant, MQTT integration, "Device discovery payload" (since 2024.11): one retained message a device at
homeassistant/device/ID/config, with `device`, `origin`, shared options and `components`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamer import __version__
from streamer.protocol.messages import DifferentialMessage

Component = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """The topics that a device's entities read."""

    differential: str
    verdict: str
    state: str
    availability: tuple[str, ...]
    """All have to say "online"."""


@dataclass(slots=True)
class Device:
    """One source. What was seen of it once stays an entity: a flag that is gone is off, not missing."""

    id: str
    """Letters, digits, `_` and `-`; unique at the broker."""
    name: str
    places: Places
    _classes: dict[str, None] = field(default_factory=dict)
    _flags: dict[tuple[str, str | None], None] = field(default_factory=dict)

    def add(self, differential: DifferentialMessage) -> bool:
        """Whether it has classes or flags that are new, so that the device has to be described again."""
        before = len(self._classes) + len(self._flags)
        self._classes.update(dict.fromkeys(differential.classes))
        self._flags.update(dict.fromkeys((flag.code, flag.class_) for flag in differential.flags))
        return len(self._classes) + len(self._flags) > before

    def config(self) -> bytes:
        """The retained message of discovery, JSON."""
        components = {
            key: {"unique_id": f"{self.id}_{key}", **component} for key, component in self._components().items()
        }
        return json.dumps(
            {
                "device": {
                    "identifiers": [self.id],
                    "name": self.name,
                    "manufacturer": "leukostream",
                    "model": "Live white-cell differential, for research",
                    "sw_version": __version__,
                },
                "origin": {"name": "leukostream", "sw_version": __version__},
                "availability": [{"topic": topic} for topic in self.places.availability],
                "availability_mode": "all",
                "state_topic": self.places.differential,
                "qos": 1,
                "components": components,
            }
        ).encode()

    def _components(self) -> dict[str, Component]:
        verdict, state = self.places.verdict, self.places.state
        return {
            "total": _sensor("White cells", "{{ value_json.total }}", unit="cells"),
            **{
                f"percent_{slug}": _sensor(name, _percent(name), unit="%", suggested_display_precision=1)
                for slug, name in _slugs(self._classes)
            },
            "verdict": {
                **_text("Verdict", verdict, "{{ value_json.state }}"),
                "json_attributes_topic": verdict,
            },
            "state": {**_text("State", state, "{{ value }}"), "entity_category": "diagnostic"},
            "flag": _binary("Any flag", "value_json.flags"),
            **{
                f"flag_{slug}": _binary(name.capitalize(), _has_flag(*flag))
                for (slug, name), flag in zip(_slugs(map(_flag_name, self._flags)), self._flags, strict=True)
            },
        }


def _sensor(name: str, template: str, *, unit: str, **more: Any) -> Component:
    return {
        "platform": "sensor",
        "name": name[:1].upper() + name[1:],
        "value_template": template,
        "unit_of_measurement": unit,
        "state_class": "measurement",
        **more,
    }


def _text(name: str, topic: str, template: str) -> Component:
    return {"platform": "sensor", "name": name, "state_topic": topic, "value_template": template}


def _binary(name: str, condition: str) -> Component:
    template = f"{{{{ 'ON' if {condition} else 'OFF' }}}}"
    return {"platform": "binary_sensor", "name": name, "device_class": "problem", "value_template": template}


def _percent(class_name: str) -> str:
    """None, "unknown" in Home Assistant, while nothing was counted and where another model has no such class."""
    return f"{{{{ value_json.classes.get({json.dumps(class_name)}, {{}}).get('percent') }}}}"


def _has_flag(code: str, class_name: str | None) -> str:
    of_class = "'none'" if class_name is None else f"'equalto', {json.dumps(class_name)}"
    return (
        f"value_json.flags | selectattr('code', 'equalto', {json.dumps(code)}) | selectattr('class', {of_class}) | list"
    )


def _flag_name(flag: tuple[str, str | None]) -> str:
    code, class_name = flag
    return code if class_name is None else f"{class_name}: {code}"


def _slugs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each name with one of lower-case letters, digits and `_` that no other has."""
    slugs: dict[str, str] = {}
    for name in names:
        slug = base = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "other"
        number = 2
        while slug in slugs:
            slug, number = f"{base}_{number}", number + 1
        slugs[slug] = name
    return list(slugs.items())
