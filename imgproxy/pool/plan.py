"""How many renderers a host has and how large they may grow, and under which name clients and keeper of one plan meet."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from imgproxy.limits import Limits
from imgproxy.picture import EDITION

JOBS = "jobs"
"""The door where jobs queue for a renderer."""

LIFE = "life"
"""The door where every client process holds on to the keeper."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """The renderers of a host. Every field is a setting of the same name under `[pool]`.

    `queue` is how many jobs may wait for a renderer, and should not be less than `renderers`; `memory` is the most address space of
    one renderer, in bytes. One is replaced after `renders` jobs, or when it holds on to more than `resident` bytes after a job.
    """

    renderers: int = 2
    queue: int = 64
    memory: int = 1280 * 2**20
    renders: int = 1000
    resident: int = 400 * 2**20


def written(plan: PoolPlan, limits: Limits) -> str:
    """Plan and limits as one text, to hand to another process."""
    return json.dumps({"plan": asdict(plan), "limits": asdict(limits)}, sort_keys=True)


def read(text: str) -> tuple[PoolPlan, Limits]:
    """The plan and the limits of what `written` wrote."""
    fields = json.loads(text)
    return PoolPlan(**fields["plan"]), Limits(**fields["limits"])


def stem(plan: PoolPlan, limits: Limits) -> str:
    """The first part of the names of a pool's sockets: other plans, limits, users, interpreters or code have another pool."""
    digest = hashlib.sha256(f"{written(plan, limits)} {EDITION} {os.geteuid()} {sys.executable}".encode())
    package = Path(__file__).parent.parent
    for file in sorted([*package.glob("*.py"), *package.glob("pool/*.py"), *package.glob("vips/*.py")]):
        digest.update(file.read_bytes())
    return f"pool-{digest.hexdigest()[:16]}"
