"""What NVIDIA's builder made in this run, told at its end: lines for the log of CI."""

from __future__ import annotations

import pytest

BUILDS: list[str] = []


@pytest.fixture
def builds() -> list[str]:
    """Lines to show at the end of the run."""
    return BUILDS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if BUILDS:
        terminalreporter.section("builds by TensorRT for RTX")
        for line in BUILDS:
            terminalreporter.write_line(line)
