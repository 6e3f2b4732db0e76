"""The documents of the doors: valid by the specification, complete, and a page that needs nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from imgproxy.web import admin
from imgproxy.web.late import Late
from imgproxy.web.openapi import answers_of
from imgproxy.web.operation import Operation, Upload
from tests.serving import Server, serving


def _nothing() -> Any:
    raise AssertionError("a document needs nothing to be made")


OPERATIONS = admin.table(Late(_nothing, "nothing"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("manual"), IMG_WORKERS="1") as server:
        yield server


@pytest.mark.parametrize(("path", "beginning"), [("/admin/openapi.json", "/"), ("/v1/openapi.json", "/v1/")])
def test_a_document_is_valid_and_has_every_operation(server: Server, path: str, beginning: str) -> None:
    answer = server.ask("GET", path, token="")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document = answer.json
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == {(one.method, one.path) for one in OPERATIONS if one.path.startswith(beginning)}


def test_a_document_says_of_each_operation_what_it_takes_and_what_it_answers(server: Server) -> None:
    document = server.ask("GET", "/admin/openapi.json", token="").json
    for one in OPERATIONS:
        said = document["paths"][one.path][one.method.lower()]
        assert said["security"] == ([] if one.scope is None else [{"token": []}])
        assert set(said["responses"]) == {str(status) for status in (*answers_of(one), 414, 431)}
        assert ("requestBody" in said) == (one.body is not None)
        named = {parameter["name"] for parameter in said["parameters"]}
        assert named == {*one.parts, *one.headers, *one.query.__struct_fields__}
        if isinstance(one.body, Upload):
            assert set(said["requestBody"]["content"]) == set(one.body.media) - {""}


def test_every_reference_in_a_document_leads_somewhere(server: Server) -> None:
    text = server.ask("GET", "/admin/openapi.json", token="").body.decode()
    schemas = server.ask("GET", "/admin/openapi.json", token="").json["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= set(schemas)


class _Page(HTMLParser):
    """Notes what a page is made of, and whether it is closed properly."""

    void = frozenset(("br", "meta"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        said = dict(attrs)
        assert not [name for name in said if name.startswith("on") or name == "src"]
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_neither_script_nor_another_server(server: Server) -> None:
    answer = server.ask("GET", "/admin/docs", token="")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = answer.body.decode()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.seen.isdisjoint(("script", "link", "img", "iframe", "object"))
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for one in OPERATIONS:
        assert f"<code>{one.path}</code>" in text
    assert "//" not in re.sub(r"https?://(?:127[.]0[.]0[.]1|example[.]org)", "", text)


NEEDING = [one for one in OPERATIONS if one.scope is not None]


@pytest.mark.parametrize("operation", NEEDING, ids=lambda operation: operation.name)
def test_an_operation_that_needs_a_token_tells_nothing_to_who_has_none(server: Server, operation: Operation) -> None:
    path = re.sub(r"{\w+}", "0", operation.path)
    answers = [server.ask(operation.method, path, token=""), server.ask(operation.method, path, token="", Authorization="Basic eDp5")]
    assert answers[0].status == 401
    assert answers[1].status in (401, 429)
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert operation.method == "HEAD" or set(answer.json) <= {"type", "title", "status", "detail"}


@pytest.mark.parametrize("path", ["/admin/commits", "/admin/docs", "/v1/images", f"/v1/images/{'0' * 64}/metadata"])
def test_head_says_what_get_would(server: Server, path: str) -> None:
    get, head = server.ask("GET", path), server.ask("HEAD", path)
    assert (head.status, head.body) == (get.status, b"")
    for name in ("content-type", "content-length", "cache-control"):
        assert head.headers[name] == get.headers[name]
