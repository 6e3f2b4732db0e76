"""The word that goes out when a task is done: its JSON, posted to a URL, signed so that the other side knows whose it is.

Imgproxy-Task       the id of the task: the same for every try, so that who hears twice can tell
Imgproxy-Timestamp  seconds since 1970
Imgproxy-Signature  v1=<HMAC-SHA256 in hex of timestamp, a full stop, and the body>
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from imgproxy.jobs import shown
from imgproxy.jobs.task import Task


def body(task: Task) -> bytes:
    """What is said of a task; not how its saying goes."""
    said = shown(task)
    return json.dumps({name: value for name, value in said.items() if name not in ("delivery", "callback")}, separators=(",", ":")).encode()


def headers(task: Task, said: bytes, key: bytes, now: float) -> Mapping[str, str]:
    """The headers that go with it."""
    moment = str(int(now))
    return {
        "Content-Type": "application/json",
        "Imgproxy-Task": task.id,
        "Imgproxy-Timestamp": moment,
        "Imgproxy-Signature": f"v1={signature(key, moment, said)}",
    }


def signature(key: bytes, moment: str, said: bytes) -> str:
    """The signature of a body sent at a moment."""
    return hmac.new(key, moment.encode() + b"." + said, hashlib.sha256).hexdigest()


def key_of(file: Path) -> bytes:
    """The key in a file, which is made if need be: one of all who try."""
    with suppress(FileExistsError):
        draft = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
                out.write(secrets.token_hex(32).encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
            os.link(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    return bytes.fromhex(file.read_text().strip())
