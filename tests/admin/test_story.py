"""The story that the README tells with curl."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.plain import png, written
from tests.serving import serving

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_story_of_the_readme_is_true(tmp_path: Path) -> None:
    (script,) = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    picture = written(tmp_path / "sea.png", png(300, 200))
    with serving(tmp_path / "var") as server:
        env = {**server.env, "SERVER": f"http://127.0.0.1:{server.port}"}
        told = subprocess.run(
            ["bash", "-c", script, "story", str(picture)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
    assert (told.returncode, told.stdout) == (0, "the story of commit 1 is told\n"), told.stderr
