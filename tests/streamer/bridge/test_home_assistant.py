"""What Home Assistant is told, against what its documentation asks for, and what its templates make of our messages.

Home Assistant evaluates templates with Jinja in a sandbox, with `value` and `value_json` of the message.
"""

from __future__ import annotations

import json
from typing import Any

from jinja2.sandbox import SandboxedEnvironment

from streamer.bridge.events import Event
from streamer.bridge.mqtt_messages import Publication, Topics
from streamer.records import ClassShare, Flag
from tests.streamer.bridge.bridge_cases import blast_flag, differential, event, factory
from tests.streamer.protocol.message_cases import make_health

DEVICE = "homeassistant/device/leukostream_bench_cam/config"


def by_topic(publications: list[Publication]) -> dict[str, bytes]:
    return {one.topic: one.body for one in publications}


def config_of(*events: Event) -> dict[str, Any]:
    topics = Topics("leukostream", "bench")
    said: dict[str, bytes] = {}
    for one in events:
        said |= by_topic(topics.publications(one))
    return dict(json.loads(said[DEVICE]))


def values(config: dict[str, Any], said: dict[str, bytes]) -> dict[str, str]:
    """What each entity shows, by its key."""
    shown = {}
    for key, component in config["components"].items():
        body = said[component.get("state_topic", config["state_topic"])].decode()
        template = SandboxedEnvironment().from_string(component["value_template"])
        value_json = json.loads(body) if body.startswith("{") else None
        shown[key] = template.render(value=body, value_json=value_json)
    return shown


def test_the_message_has_what_device_discovery_asks_for() -> None:
    config = config_of(event(differential(factory(), 3)))
    assert set(config["device"]["identifiers"]) == {"leukostream_bench_cam"}
    assert config["origin"]["name"] == "leukostream"
    assert config["availability_mode"] == "all"
    assert [one["topic"] for one in config["availability"]] == [
        "leukostream/bench/availability",
        "leukostream/bench/cam/availability",
    ]
    shared = {"device", "origin", "availability", "availability_mode", "state_topic", "qos", "components"}
    assert set(config) == shared
    ids = [component["unique_id"] for component in config["components"].values()]
    assert len(set(ids)) == len(ids) > 5
    for component in config["components"].values():
        assert component["platform"] in ("sensor", "binary_sensor")
        assert ("unit_of_measurement" in component) == ("state_class" in component), (
            "numbers, and only these, are charted"
        )
        if component["platform"] == "binary_sensor":
            assert component["device_class"] == "problem"


def test_what_its_entities_show() -> None:
    make, topics = factory(), Topics("leukostream", "bench")
    message = differential(make, 3, flags=(blast_flag(), Flag(code="left shift", text="…")))
    said = by_topic(topics.publications(event(message))) | by_topic(
        topics.publications(event(make.health(make_health())))
    )
    assert values(json.loads(said[DEVICE]), said) == {
        "total": "3",
        "percent_neutrophil": "100.0",
        "percent_monocyte": "0.0",
        "verdict": "incomplete",
        "state": "open",
        "flag": "ON",
        "flag_blast_seen": "ON",
        "flag_left_shift": "ON",
    }
    said |= by_topic(topics.publications(event(differential(make, 4, flags=()))))
    shown = values(json.loads(said[DEVICE]), said)
    assert (shown["flag"], shown["flag_blast_seen"], shown["flag_left_shift"]) == ("OFF", "OFF", "OFF")


def test_what_is_not_known_is_unknown_and_no_zero() -> None:
    make, topics = factory(), Topics("leukostream", "bench")
    said = by_topic(topics.publications(event(differential(make, 1))))
    empty = differential(make, 0, classes={"neutrophil": ClassShare(0, None, None, None)})
    said |= by_topic(topics.publications(event(empty)))
    config = json.loads(said[DEVICE])
    config["components"] = {k: v for k, v in config["components"].items() if k.startswith("percent")}
    assert values(config, said) == {"percent_neutrophil": "None", "percent_monocyte": "None"}


def test_it_is_told_again_only_when_there_is_something_new() -> None:
    make, topics = factory(), Topics("leukostream", "bench")
    told = [
        DEVICE in by_topic(topics.publications(event(differential(make, 1, flags=flags))))
        for flags in [(), (), (blast_flag(),), (), (blast_flag(),)]
    ]
    assert told == [True, False, True, False, False]


def test_names_of_another_laboratory_stay_apart_and_harmless() -> None:
    share = ClassShare(1, 100.0, 2.5, 100.0)
    nasty = "neutro\"phil' }} {{ 7*7 }}"
    classes = {nasty: share, "Neutrophil": ClassShare(0, 0.0, 0.0, 1.0), "neutrophil": share, "сегментоядерный": share}
    topics = Topics("leukostream", "bench")
    said = by_topic(topics.publications(event(differential(factory(), 1, classes=classes, flags=()))))
    config = json.loads(said[DEVICE])
    config["components"] = {k: v for k, v in config["components"].items() if k.startswith("percent")}
    assert list(values(config, said).values()) == ["100.0", "0.0", "100.0", "100.0"]


def test_who_has_no_home_assistant_tells_it_nothing() -> None:
    topics = Topics("leukostream", "bench", discovery=None)
    assert not [one for one in topics.publications(event(differential(factory()))) if "/config" in one.topic]


def test_availability_and_state_are_said_when_they_change_and_kept_by_the_broker() -> None:
    make, topics = factory(), Topics("leukostream", "bench", discovery=None)
    health = event(make.health(make_health()))
    said = topics.publications(health)
    assert [(one.topic, one.body, one.is_retained) for one in said if not one.topic.endswith("health")] == [
        ("leukostream/bench/cam/availability", b"online", True),
        ("leukostream/bench/cam/state", b"open", True),
    ]
    assert [one.topic for one in topics.publications(health)] == ["leukostream/bench/cam/health"]
    silent = Event("silent", "cam", None)
    assert [(one.topic, one.body) for one in topics.publications(silent)] == [
        ("leukostream/bench/cam/availability", b"offline")
    ]
    end = topics.publications(event(make.end("failed", "camera lost")))
    assert [(one.topic, one.is_retained) for one in end] == [
        ("leukostream/bench/cam/availability", True),
        ("leukostream/bench/cam/end", False),
        ("leukostream/bench/cam/state", True),
    ]
    assert end[-1].body == b"failed"
