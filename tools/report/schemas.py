"""Write the JSON Schemas of the protocol's messages, docs/schema/*.json: python -m tools.report schemas"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamer import records
from streamer.protocol import messages, requests
from tools.commands import command_parser

PUBLISHED_NAMES = {"StagePosition": "Stage", "CellShape": "Shape", "AttributeValue": "Attribute"}
"""What the schemas call a struct, where its class has another name."""

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schema"


def make_schemas() -> dict[str, str]:
    """The text of each schema by name: TYPE for messages, request-NAME and reply-NAME of the service socket."""
    kinds: list[tuple[str, str, Mapping[str, type[msgspec.Struct]]]] = [
        ("", "Message", messages.MESSAGE_TYPES),
        ("request-", "Request", requests.REQUEST_TYPES),
        ("reply-", "Reply", requests.REPLY_TYPES),
    ]
    structs = [struct for _, _, types in kinds for struct in types.values()]
    _, by_class = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    asked = {struct.__name__ for struct in requests.REQUEST_TYPES.values()}
    modules = messages, requests, records
    in_requests = {used for name in asked for used in _references(by_class[name], by_class)}
    for name in by_class.keys() - asked - in_requests:
        struct = next(vars(module)[name] for module in modules if name in vars(module))
        _require_all_that_is_always_sent(by_class[name], struct)
    for name in asked:
        by_class[name]["required"].insert(1, "version")  # which has a default for our own requests alone
    components = {PUBLISHED_NAMES.get(name, name): _renamed(component) for name, component in by_class.items()}
    texts = {}
    for prefix, what, types in kinds:
        for type_, struct in types.items():
            schema: dict[str, Any] = {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "description": f"{what} {type_!r} of the leukostream protocol {messages.PROTOCOL_VERSION}. "
                "Later minor versions may add fields.",
                **components[struct.__name__],
            }
            used = _references(schema, components)
            if used:
                schema["$defs"] = {name: components[name] for name in sorted(used)}
            texts[prefix + type_] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return texts


def _renamed(schema: Any) -> Any:
    """A schema that refers to others by their published names."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            return {**schema, "$ref": f"#/$defs/{PUBLISHED_NAMES.get(name, name)}"}
        return {
            key: PUBLISHED_NAMES.get(value, value) if key == "title" else _renamed(value)
            for key, value in schema.items()
        }
    return [_renamed(one) for one in schema] if isinstance(schema, list) else schema


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


def main(arguments: Sequence[str]) -> None:
    command_parser("tools.report schemas", __doc__).parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for type_, text in make_schemas().items():
        path = FOLDER / f"{type_}.json"
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(FOLDER.parent.parent))
