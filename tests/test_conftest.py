"""The rules that hold for every test are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PASSES = "def test_passes():\n    pass\n"
SKIPS = PASSES + "import pytest\n@pytest.mark.skip\ndef test_skips():\n    pass\n"
SKIPS_WHOLLY = "import pytest\npytest.skip('all of it', allow_module_level=True)\n"
SETTINGS = "import os\ndef test_settings():\n    assert not [name for name in os.environ if name.startswith('IMG_')]\n"


def outcome(directory: Path, tests: str, ci: str, *more: str) -> tuple[int, str]:
    """How a run of other tests under our rules ends, and what it says."""
    (directory / "test_other.py").write_text(tests)
    environ = {**os.environ, "CI": ci, "IMG_POLICY": "signed"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(directory),
    ]
    done = subprocess.run([*command, *more, str(directory)], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout


@pytest.mark.parametrize("spread", [(), ("-n", "1")], ids=["alone", "spread"])
def test_in_ci_a_skip_is_a_failure_and_is_named(tmp_path: Path, spread: tuple[str, ...]) -> None:
    code, said = outcome(tmp_path, SKIPS, "true", *spread)
    assert code == 1
    assert "SKIPPED, which is a failure in CI: test_other.py::test_skips" in said


def test_in_ci_a_whole_file_that_is_skipped_is_a_failure(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, SKIPS_WHOLLY, "true")
    assert code != 0
    assert "SKIPPED, which is a failure in CI: test_other.py" in said


@pytest.mark.parametrize(("tests", "ci"), [(PASSES, "true"), (SKIPS, ""), (SKIPS, "false")])
def test_elsewhere_or_without_a_skip_nothing_changes(tmp_path: Path, tests: str, ci: str) -> None:
    code, said = outcome(tmp_path, tests, ci)
    assert code == 0
    assert "failure in CI" not in said


def test_the_settings_of_the_developer_are_forgotten(tmp_path: Path) -> None:
    assert outcome(tmp_path, SETTINGS, "true")[0] == 0
