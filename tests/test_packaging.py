"""What is installed, and what is built."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
APART = ("tests/swift.lock", "tests/bench/rival.lock")
"""What lives in virtual environments of its own."""
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


def pins(lock: str) -> dict[tuple[str, str], str]:
    """Package and marker -> version."""
    found = re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+?)(?: ; (.*?))? \\$", (ROOT / lock).read_text(), re.MULTILINE)
    return {(name, marker): number for name, number, marker in found}


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", requirement)[0].replace(".", "-") for requirement in requirements}


@pytest.mark.parametrize("lock", [*LOCKS, *APART])
def test_a_lock_vouches_for_everything_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(lock))
    for block in blocks:
        assert "--hash=sha256:" in block, block
    assert not re.search("://|index|find-links", text)


def test_the_locks_agree_with_each_other_and_with_what_is_declared() -> None:
    run, dev, build = (pins(lock) for lock in LOCKS)
    assert run.items() <= dev.items()
    assert build.items() <= dev.items()
    extras = [requirement for extra in PROJECT["project"]["optional-dependencies"].values() for requirement in extra]
    assert named(PROJECT["project"]["dependencies"] + extras) <= {name for name, _ in run}
    groups = [requirement for group in PROJECT["dependency-groups"].values() for requirement in group]
    assert named(groups) <= {name for lock in ("requirements-dev.lock", *APART) for name, _ in pins(lock)}


def test_what_is_installed_is_what_is_locked() -> None:
    for (name, marker), number in pins("requirements-dev.lock").items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            assert marker, name
        else:
            assert installed == number or marker, name


def test_the_wheel_carries_the_package_and_its_configuration_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"imgproxy/grammar.py", "imgproxy/conf/imgproxy.toml", "imgproxy/conf/gunicorn.conf.py"} <= names
    assert {name.split("/")[0] for name in names} == {"imgproxy", f"imgproxy-{PROJECT['project']['version']}.dist-info"}
