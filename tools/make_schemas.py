"""Write the JSON Schemas of the protocol's messages, docs/schema/TYPE.json: python -m tools.make_schemas"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from streamer import wire

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schema"


def make_schemas() -> dict[str, str]:
    """The text of each schema by message type, from the structs of streamer/wire.py."""
    structs = list(wire.MESSAGE_TYPES.values())
    _, components = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    for name in components:
        _require_all_that_is_always_sent(components[name], getattr(wire, name))
    texts = {}
    for type_, struct in wire.MESSAGE_TYPES.items():
        schema: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "description": f"Message {type_!r} of the leukostream protocol {wire.PROTOCOL_VERSION}. "
            "Later minor versions may add fields.",
            **components[struct.__name__],
        }
        used = _references(schema, components)
        if used:
            schema["$defs"] = {name: components[name] for name in sorted(used)}
        texts[type_] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return texts


def _require_all_that_is_always_sent(component: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """A field with a default is optional to our reader, but every message that we send has it."""
    optional = {field.encode_name for field in msgspec.structs.fields(struct) if field.default is msgspec.UNSET}
    component["required"] = [name for name in component["properties"] if name not in optional]
    for schema in component["properties"].values():
        schema.pop("default", None)


def _references(schema: object, components: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            return {name} | _references(components[name], components)
        for value in schema.values():
            found |= _references(value, components)
    elif isinstance(schema, list):
        for value in schema:
            found |= _references(value, components)
    return found


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m tools.make_schemas", description=__doc__).parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for type_, text in make_schemas().items():
        path = FOLDER / f"{type_}.json"
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(FOLDER.parent.parent))


if __name__ == "__main__":
    main()
