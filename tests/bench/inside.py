"""What happens inside: the pool against rendering in this process, and the parser."""

from __future__ import annotations

import tempfile
import timeit
from pathlib import Path

from imgproxy import render
from imgproxy.grammar import Derived, parse
from imgproxy.limits import Limits
from imgproxy.pool import Pool, PoolPlan
from tests.bench.pictures import PHOTO
from tests.bench.ratio import Line, at_most, ratios, seconds

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SHORT = f"{HASH}-1024x512.jpg"
LONG = f"{HASH}-1200x630-bg_0a0b0c-blur_10-crop_10x20x3000x2000-fill_ne-flip-mark_logo1-page_2-q_70-sharp_8-turn_270-up.webp"


def measured() -> list[Line]:
    """Pool by in-process rendering; microseconds a name."""
    name = Derived(HASH, "jpg", width=1024, height=512)
    with tempfile.TemporaryDirectory() as folder, PHOTO.open("rb") as file:
        pool = Pool(Path(folder), Limits(), PoolPlan(renderers=1))

        def pooled() -> float:
            return seconds(lambda: pool.render(file, name, None, 60))

        def inside() -> float:
            return seconds(lambda: render.render(file, name, Limits()))

        found = ratios(pooled, inside, 100)
        pool.close()
    pool_line = at_most("a 6-megapixel render in the pool by one in process", found, 1.05)
    return [pool_line, _parse("a usual name", SHORT), _parse("the longest", LONG)]


def _parse(which: str, text: str) -> Line:
    micros = min(timeit.repeat(lambda: parse(text), number=10_000, repeat=9)) / 10_000 * 1e6
    return Line(f"parse, {which}", f"{micros:.1f} us", "under 10 us", micros < 10)
