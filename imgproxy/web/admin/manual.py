"""What these doors are, for programs and for people: OpenAPI documents made of the table, and a page to read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from imgproxy.web.leaflet import HEADERS, page
from imgproxy.web.openapi import document
from imgproxy.web.operation import Answer, Asked, Operation, Reply

_ALL = "Images in, what is said of them, commits, upkeep: everything that writes, and the versioned interface."
_VERSIONED = "The versioned interface: pictures in, their renditions, and what is said of them."


def operations(others: Sequence[Operation]) -> tuple[Operation, ...]:
    """The rows that describe all rows, themselves among them."""

    @cache
    def described(beginning: str) -> dict[str, Any]:
        rows = [one for one in (*others, *ours) if one.path.startswith(beginning)]
        return document(rows, "imgproxy", _ALL if beginning == "/" else _VERSIONED)

    def document_of(beginning: str, name: str, path: str, what: str) -> Operation:
        def show(asked: Asked[Any]) -> Reply:
            return Reply(described(beginning))

        return Operation(
            name=name,
            method="GET",
            path=path,
            scope=None,
            what=what,
            call=show,
            answers={200: Answer("The document.", dict[str, Any])},
            writes=False,
        )

    @cache
    def pressed() -> bytes:
        return page(described("/"))

    def read(asked: Asked[Any]) -> Reply:
        return Reply(pressed(), headers=HEADERS)

    ours = (
        document_of("/", "document", "/admin/openapi.json", "This document: all operations, by OpenAPI 3.1."),
        document_of("/v1/", "versioned_document", "/v1/openapi.json", "The document of the versioned interface, by OpenAPI 3.1."),
        Operation(
            name="docs",
            method="GET",
            path="/admin/docs",
            scope=None,
            what="The document as a page to read.",
            call=read,
            answers={200: Answer("The page.", None, "text/html; charset=utf-8")},
            writes=False,
        ),
    )
    return ours
