"""The table of operations as an OpenAPI 3.1 document, out of the same types that validate: what it says is what is done.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from imgproxy.web.operation import COMMON, JSON, NEEDING_A_TOKEN, PROBLEM, TAKING_NO_BODY, Answer, Operation, Problem, Upload

_PART = re.compile(r"\{(\w+)\}")
_SCHEMAS = "#/components/schemas/"
_OF_BODIES = (413, 415)
_BY_THE_SERVER = {414: "The request line is too long.", 431: "The headers are too long, or too many."}
"""What the server refuses by itself, before any operation is looked for, with a few words of HTML."""
_NOT_HERE = Answer("Nothing of that name is here.")


def document(operations: Sequence[Operation], title: str, what: str) -> dict[str, Any]:
    """The document that describes these rows."""
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version("imgproxy"), "description": what},
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "A token with the scope that is needed."}},
        },
    }


def answers_of(operation: Operation) -> dict[int, Answer]:
    """All that an operation may answer, in the order of their statuses."""
    found = {status: answer for status, answer in COMMON.items() if operation.body is not None or status not in _OF_BODIES}
    if operation.body is None:
        found |= TAKING_NO_BODY
    if operation.scope is not None:
        found |= NEEDING_A_TOKEN
    if operation.parts:
        found[404] = _NOT_HERE
    found |= operation.answers
    return dict(sorted(found.items()))


class _Schemas:
    """The types of all rows, as JSON schemas that refer to each other."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._types = list(dict.fromkeys([Problem, *(kind for one in operations for kind in _types(one))]))
        told, self.components = msgspec.json.schema_components(self._types, ref_template=_SCHEMAS + "{name}")
        self._told: dict[Any, dict[str, Any]] = dict(zip(self._types, told, strict=True))

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type, or where it is."""
        return self._told[kind]

    def fields(self, kind: type[msgspec.Struct]) -> tuple[Mapping[str, Any], Sequence[str]]:
        """The schemas of the fields of a struct, and which of them must be said."""
        schema = self.components[self._told[kind]["$ref"].removeprefix(_SCHEMAS)]
        return schema["properties"], schema.get("required", [])


def _types(operation: Operation) -> Iterator[Any]:
    yield operation.query
    if operation.body is not None and not isinstance(operation.body, Upload):
        yield operation.body
    yield from (answer.type for answer in operation.answers.values() if answer.type is not None)


def _operation(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": one.name,
        "tags": [" ".join(one.path.split("/")[1:3])],
        "summary": one.what,
        "parameters": [*_parts(one), *_query(one, schemas), *_headers(one)],
        "responses": {str(status): _response(status, answer, schemas) for status, answer in answers_of(one).items()}
        | {str(status): {"description": what} for status, what in _BY_THE_SERVER.items()},
        "security": [] if one.scope is None else [{"token": []}],
    }
    if one.scope is not None:
        said["description"] = f"Needs a token with the scope `{one.scope}`." if one.scope != "any" else "Needs a token, of whatever scope."
    if one.body is not None:
        said["requestBody"] = _body(one, schemas)
    return said


def _parts(one: Operation) -> Iterator[dict[str, Any]]:
    for name in _PART.findall(one.path):
        schema: dict[str, Any] = {"type": "string"}
        if name in one.parts:
            schema["pattern"] = f"^(?:{one.parts[name]})$"
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(one: Operation, schemas: _Schemas) -> Iterator[dict[str, Any]]:
    properties, required = schemas.fields(one.query)
    for name, schema in properties.items():
        yield {"name": name, "in": "query", "required": name in required, "schema": schema}


def _headers(one: Operation) -> Iterator[dict[str, Any]]:
    for name, what in one.headers.items():
        yield {"name": name, "in": "header", "required": False, "description": what, "schema": {"type": "string"}}


def _body(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    if isinstance(one.body, Upload):
        return {"required": "" not in one.body.media, "content": {media: {} for media in one.body.media if media}}
    return {"required": not one.optional, "content": {media: {"schema": schemas.of(one.body)} for media in one.media}}


def _response(status: int, answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    said: dict[str, Any] = {"description": answer.what}
    if answer.headers:
        said["headers"] = {name: {"description": what, "schema": {"type": "string"}} for name, what in answer.headers.items()}
    if status >= 400:
        said["content"] = {PROBLEM: {"schema": schemas.of(Problem)}}
    elif answer.type is not None:
        said["content"] = {answer.media: {"schema": schemas.of(answer.type)}}
    elif answer.media != JSON:
        said["content"] = {answer.media: {}}
    return said
