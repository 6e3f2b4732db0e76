"""An OpenAPI document as a page to read: HTML of our own, one file, no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
"""The page needs nothing but its own style."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1rem }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #8884 }
details { margin: 0.3rem 0; padding: 0.3rem 0.8rem; border: 1px solid #8884; border-radius: 0.4rem }
summary { cursor: pointer }
summary b { display: inline-block; min-width: 4.5rem }
"""


def page(document: Mapping[str, Any]) -> bytes:
    """The page of a document."""
    title = escape(document["info"]["title"])
    sections = "".join(_sections(document))
    schemas = "".join(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head>
<body>
<h1>{title} {escape(document["info"]["version"])}</h1>
<p>{escape(document["info"]["description"])}</p>
{sections}
<h2 id="types">Types</h2>
{schemas}
</body>
</html>
""".encode()


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    for tag, operations in found.items():
        yield f'<h2 id="{escape(tag.replace(" ", "-"))}">{escape(tag)}</h2>{"".join(operations)}'


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(operation['description'])}</p>" if "description" in operation else "<p>Needs no token.</p>"]
    if operation["parameters"]:
        rows = [(one["name"], one["in"], _type(one["schema"]), _further(one)) for one in operation["parameters"]]
        parts.append(_table(("Parameter", "in", "type", ""), rows))
    if "requestBody" in operation:
        parts.append(_table(("Body", "type"), [(media, _type(one.get("schema", {}))) for media, one in _content(operation["requestBody"])]))
    parts.append(_table(("Status", "", "type"), [_answer(status, answer) for status, answer in operation["responses"].items()]))
    summary = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    return f'<details id="{escape(operation["operationId"])}"><summary>{summary}</summary>{"".join(parts)}</details>'


def _answer(status: str, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    told = [escape(answer["description"])]
    told += [f"<code>{escape(name)}</code>: {escape(one['description'])}" for name, one in answer.get("headers", {}).items()]
    return status, "<br>".join(told), "<br>".join(f"{escape(media)} {_type(one.get('schema', {}))}" for media, one in _content(answer))


def _content(holder: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(holder.get("content", {}).items())


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [(key, _type(one), "needed" if key in required else "", _further({"schema": one})) for key, one in schema["properties"].items()]
    told = f"<p>{escape(schema.get('description', ''))}</p>"
    return f'<h3 id="{escape(name)}">{escape(name)}</h3>{told}{_table(("Field", "type", "", ""), rows)}'


def _further(one: Mapping[str, Any]) -> str:
    """What is to be known of a field beside its type."""
    schema = one["schema"]
    told = [escape(one.get("description", schema.get("description", "")))]
    bounds = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")
    told += [f"{word} <code>{escape(str(schema[word]))}</code>" for word in bounds if word in schema]
    if schema.get("default") not in (None, "", [], {}):
        told.append(f"default <code>{escape(str(schema['default']))}</code>")
    return ", ".join(filter(None, told))


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to the types of this page."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(one)) or '&quot;&quot;'}</code>" for one in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(kind) if schema else "bytes")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
