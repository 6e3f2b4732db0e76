"""The request target, as it stood in the request line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def raw_target(env: Mapping[str, Any]) -> str:
    """The request target as it stood in the request line; where the server keeps none, it is put together again."""
    raw = env.get("RAW_URI") or env.get("REQUEST_URI")
    if raw is not None:
        return str(raw)
    path = quote((env.get("SCRIPT_NAME", "") + env.get("PATH_INFO", "")).encode("latin-1"), safe="/")
    return f"{path}?{env['QUERY_STRING']}" if env.get("QUERY_STRING") else path
