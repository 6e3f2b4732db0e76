"""The moment at which a copy was level: the same for all processes of a node, and never one of another boot."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from imgproxy.meta.level import Level


def test_what_one_process_notes_all_others_tell(tmp_path: Path) -> None:
    here, there = Level(tmp_path / "level"), Level(tmp_path / "level")
    here.note(time.monotonic() - 1_000)
    assert 1_000 <= there.lag() < 1_060
    noting = (
        "import sys, time; from pathlib import Path; from imgproxy.meta.level import Level; Level(Path(sys.argv[1])).note(time.monotonic())"
    )
    subprocess.run([sys.executable, "-c", noting, str(tmp_path / "level")], check=True, timeout=60)
    assert here.lag() < 60
    assert there.lag() < 60


def test_who_begins_later_tells_what_was_noted_before(tmp_path: Path) -> None:
    Level(tmp_path / "level").note(time.monotonic() - 1_000)
    assert 1_000 <= Level(tmp_path / "level").lag() < 1_060


def test_a_moment_of_another_boot_says_nothing(tmp_path: Path) -> None:
    Level(tmp_path / "level").note(time.monotonic() + 1e6)  # that one had run for longer
    kept = (tmp_path / "level").read_bytes()
    (tmp_path / "level").write_bytes(kept[:8] + bytes(16))
    assert 0 <= Level(tmp_path / "level").lag() < 60


def test_without_a_place_for_it_a_process_knows_what_it_noted_itself(tmp_path: Path) -> None:
    level = Level(tmp_path / "no/such/directory")
    assert 0 <= level.lag() < 60
    level.note(time.monotonic() - 1_000)
    assert 1_000 <= level.lag() < 1_060
