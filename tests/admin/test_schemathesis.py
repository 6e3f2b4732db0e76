"""A tester that makes requests out of the document, right ones and wrong ones, against a real server: it finds nothing.

To look further than the build has time for: `SEARCH_SECONDS=600 make test T=tests/admin/test_schemathesis.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plain import png, written
from tests.serving import environment, serving

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("SEARCH_SECONDS", "30"))

CONFIGURATION = """
headers = {{ Authorization = "Bearer {token}", Tus-Resumable = "1.0.0" }}
hooks = "tests.schemathesis_hooks"
request-timeout = 60

[parameters]
hash = "{hash}"
id = "{hash}"

[checks]
# Wrong tokens are counted, and soon answered with 429 instead: `test_manual.py` asks every operation for its token.
ignored_auth.enabled = false
# What a schema cannot say (an alias needs domain and dkey, a session must be open) is refused nevertheless.
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 411, 412, 413, 415, 422, 428, 429]

[generation]
database = "none"
"""


@pytest.mark.timeout(SECONDS + 200)
def test_requests_out_of_the_document_find_no_mistake(tmp_path: Path) -> None:
    with serving(tmp_path / "var", IMG_WORKERS="2") as server:
        (name,) = server.put(written(tmp_path / "a.png", png(60, 40)))
        subprocess.run([Path(sys.executable).parent / "imgproxy", "commit"], env=dict(server.env), check=True, timeout=60)
        told = CONFIGURATION.format(token=server.token, hash=name.partition(".")[0])
        configuration = written(tmp_path / "schemathesis.toml", told.encode())
        command = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(configuration), "--no-color", "run"]
        command += [f"http://127.0.0.1:{server.port}/admin/openapi.json", "--phases", "examples,coverage,fuzzing"]
        command += ["--max-time", str(SECONDS), *(["--seed", "1"] if "SEARCH_SECONDS" not in os.environ else [])]
        env = {**environment(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=SECONDS + 150, check=False)
        log = (server.data / "server.log").read_text()
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    tested = re.search(r"Tested: ([0-9]+)", done.stdout)
    assert tested is not None
    assert int(tested[1]) > 5
    assert "Traceback" not in log
