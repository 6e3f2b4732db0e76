"""What the tester of interfaces has to be told: how to send bodies that are no JSON."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def any_bytes(context: Any, value: Any) -> bytes:
    """Any bytes are a body."""
    return value if isinstance(value, bytes) else str(value).encode()
