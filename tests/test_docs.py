"""What can be used is documented, and what is documented is there."""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import falcon.inspect
import pytest

from imgproxy import cli, config
from imgproxy.web import admin, lookups, read
from imgproxy.web.late import Late
from imgproxy.web.operation import Operation

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted((ROOT / "imgproxy").rglob("*.py"))
    if ">>> " in file.read_text()
]


def commands(group: click.Group, before: str) -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{before} {name}"
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")


def anchors(page: Path) -> set[str]:
    """Where links into a page may lead, as its headings are spelled in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("command", [*commands(cli.main, "imgproxy")])
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"`{command}[ `]|^ *{command}\b", README, re.MULTILINE)


@pytest.mark.parametrize("command", [*commands(cli.main, "imgproxy")])
def test_every_command_says_what_it_does(command: str) -> None:
    group: click.Command = cli.main
    for word in command.split()[1:]:
        assert isinstance(group, click.Group)
        group = group.commands[word]
    assert re.fullmatch(r"[A-Z].{10,}[.].*", group.help or "", re.DOTALL)
    for parameter in group.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize(("path", "sentence"), [*read.ROUTES, *lookups.ROUTES])
def test_every_route_is_in_the_readme(path: str, sentence: str) -> None:
    assert re.search(rf"`{re.escape(path)}[`?]", README)
    assert len(sentence) > 10


def _nothing() -> Any:
    raise AssertionError("a table needs nothing to be shown")


OPERATIONS = admin.table(Late(_nothing, "nothing"))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_in_the_readme_and_says_what_it_does(operation: Operation) -> None:
    scope = {None: "none", "any": "any"}.get(operation.scope, f"`{operation.scope}`")
    assert f"| `{operation.method} {operation.path}` | {scope} |" in README
    assert re.fullmatch(r"[A-Z].{10,}[.]", operation.what)
    assert all(re.fullmatch(r"[A-Z].{5,}[.]", answer.what) for answer in operation.answers.values())


def test_operations_have_names_of_their_own_and_paths_that_are_told() -> None:
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
    for operation in OPERATIONS:
        assert set(re.findall(r"{(\w+)}", operation.path)) == set(operation.parts)
        assert admin.owns(operation.path)


def test_every_route_that_is_served_is_in_the_table_of_routes() -> None:
    nothing = cast("Any", None)
    app = read.application(nothing, nothing, {}, read.Manner())
    served = {route.path for route in falcon.inspect.inspect_routes(app)}
    assert len(served) == 3
    assert served <= {path for path, _ in read.ROUTES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_is_documented_is_read(page: Path) -> None:
    known = {config.variable(name) for name in config.KINDS} | config.NOT_OURS_TO_READ
    assert set(re.findall(r"\bIMG_[A-Z_]+[A-Z]\b", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_of_make_that_is_documented_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"serve", "test", "check", "fix", "bench"} <= targets
    assert set(re.findall(r"(?:^ +|`)make ([a-z]+)", page.read_text(), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_documentation_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match("[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_file_of_the_house_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`([a-z_]+(?:[.]py|/))`", README)
    assert len(named) > 10
    assert [file for file in named if not (ROOT / "imgproxy" / file).exists()] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_code_are_true(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_grammar_explains_itself_by_examples() -> None:
    assert "imgproxy.grammar" in MODULES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_in_the_documentation_are_true(page: Path) -> None:
    assert doctest.testfile(str(page), module_relative=False, encoding="utf-8").failed == 0


def test_the_changelog_tells_what_is_not_released_yet() -> None:
    assert re.search(r"^## Unreleased\n\n- \S", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
