"""What holds for every test: nothing of the developer's own settings, no deadline by the clock, and in CI no skip."""

from __future__ import annotations

import os

import hypothesis
import pytest

hypothesis.settings.register_profile("ours", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ours")


def pytest_configure(config: pytest.Config) -> None:
    """Forget settings that happen to be in the environment."""
    for name in [name for name in os.environ if name.startswith("IMG_")]:
        del os.environ[name]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where `CI` is `true`, a test that was skipped is a test that failed."""
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which ones; and show the tables whose rows the tests have recorded."""
    rows = [value for reports in terminalreporter.stats.values() for report in reports for value in _rows(report)]
    for heading in dict.fromkeys(heading for heading, _ in rows):
        terminalreporter.section("measured")
        terminalreporter.line(heading)
        for row in [row for of, row in rows if of == heading]:
            terminalreporter.line(row)
    for place in _skipped(config):
        terminalreporter.line(f"SKIPPED, which is a failure in CI: {place}", red=True)


def _rows(report: object) -> list[tuple[str, str]]:
    """What a test recorded as `record_property("row", (heading, row))`."""
    if getattr(report, "when", "") != "call":
        return []
    return [(str(value[0]), str(value[1])) for name, value in getattr(report, "user_properties", ()) if name == "row"]


def _skipped(config: pytest.Config) -> list[str]:
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("CI") != "true":
        return []
    return [report.nodeid for report in reporter.stats.get("skipped", [])]
