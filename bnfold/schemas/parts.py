"""What schemas are made of. A key of a document is one line: its name, what it is, and its type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bnfold.page.schema import SCHEMA

Schema = dict[str, Any]
Keys = Mapping[str, tuple[str, Schema]]

_HOME = "https://raw.githubusercontent.com/OWNER/bnfold/main/docs/schemas"

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FIGURE: Schema = {"anyOf": [NUMBER, {"enum": ["inf", "-inf", "nan"]}]}
"""A number, or a text where JSON has no number for it."""


def one_of(*words: str) -> Schema:
    """One of these words."""
    return {"enum": list(words)}


def maybe(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def each(schema: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """An object whose keys are names."""
    return {"type": "object", "additionalProperties": schema}


def record(keys: Keys, optional: Collection[str] = ()) -> Schema:
    """An object with these keys. It may have others: a later version may add some without raising the number."""
    properties = {name: {"description": told, **schema} for name, (told, schema) in keys.items()}
    return {"type": "object", "properties": properties, "required": [name for name in keys if name not in optional]}


def before_after(schema: Schema) -> Schema:
    """Two values of the same kind."""
    return record({"before": ("of the model as it was", schema), "after": ("of the folded model", schema)})


def envelope(kind: str, title: str, keys: Keys) -> Schema:
    """A whole document of a kind that `bnfold.page.schema` has a number for."""
    number = SCHEMA[kind]
    head: Keys = {
        "schema": ("version of this format; a new key does not raise it", {"const": number}),
        "bnfold": ("version of the program", TEXT),
    }
    return document(f"{kind}-{number}", title, {**head, **keys})


def document(name: str, title: str, keys: Keys) -> Schema:
    """A whole document."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": f"{_HOME}/{name}.json", "title": title, **record(keys)}
