"""What tests of several folders need."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome: the system's, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    with playwright.sync_playwright() as started:
        path = started.chromium.executable_path
    if not Path(path).exists():
        pytest.skip("no Chromium here; get one with: playwright install chromium")
    return path
