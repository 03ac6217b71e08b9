"""The text of model cards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_value(value: Any) -> str:
    """A string, number, bool or list of them as TOML; TypeError for what TOML can't hold (None among it)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"card value: got {type(value).__name__}, expected a string, number, bool or list")


def toml(tables: Mapping[str, Any]) -> str:
    """TOML text of nested mappings; lists of mappings become arrays of tables, values that are None are left out."""
    lines: list[str] = []

    def write(table: Mapping[str, Any], name: str) -> None:
        for key, value in table.items():
            if value is not None and not _is_table(value):
                lines.append(f"{key} = {toml_value(value)}")
        for key, value in table.items():
            path = f"{name}.{key}" if name else key
            if isinstance(value, Mapping):
                if any(not _is_table(v) for v in value.values()):
                    lines.extend(("", f"[{path}]"))
                write(value, path)
            elif _is_table(value):
                for row in value:
                    lines.extend(("", f"[[{path}]]"))
                    write(row, path)

    write(tables, "")
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )
