"""Killed at every step and at random: nothing that was answered is lost, nothing is there by half. And the proof can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.meta.kill_harness import STEPS


def killed(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.meta.kill_harness", "--seed", "7", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def test_no_kill_loses_what_was_answered_or_leaves_a_half() -> None:
    code, told = killed("--kills", "60")
    assert (told["lost"], told["half"], told["wrong"], told["unequal"]) == ([], [], [], [])
    assert (code, told["kills"]) == (0, 60)
    assert set(STEPS) <= set(told["steps"])
    assert told["answered"] > 60
    assert told["asked again"] > 0


def test_no_kill_loses_what_was_answered_on_a_real_swift() -> None:
    code, told = killed("--kills", str(len(STEPS)), "--store", "swift")
    assert (told["lost"], told["half"], told["wrong"], told["unequal"]) == ([], [], [], [])
    assert (code, told["kills"]) == (0, len(STEPS))
    assert told["answered"] > 5


def test_a_writer_that_answers_early_is_found_out() -> None:
    code, told = killed("--kills", "30", "--liar")
    assert code == 0
    assert told["lost"]
