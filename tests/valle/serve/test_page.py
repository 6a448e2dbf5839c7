"""The page in a real browser with a fake microphone: record a voice, speak with it, hear something."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, expect, sync_playwright

from valle.common.audio import load_audio
from valle.serve.service import Service

pytestmark = pytest.mark.slow
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser(chromium: str, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium whose microphone plays a recording, over and over."""
    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    soundfile.write(spoken, load_audio(recordings / "1998-15444-0001.opus", 48_000).numpy(), 48_000)
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=[*fake, f"--use-file-for-fake-audio-capture={spoken}", "--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: Any) -> Iterator[Page]:
    """The page, open; any error in its scripts fails the test."""
    page = browser.new_page(viewport=PHONE)
    page.set_default_timeout(60_000)
    mistakes: list[str] = []
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.on("console", lambda said: mistakes.append(said.text) if "Content Security" in said.text else None)
    page.goto(server.url)
    expect(page.locator("#voice option")).to_have_count(5, timeout=60_000)
    yield page
    page.close()
    assert mistakes == []


def brightness(page: Page, canvas: str) -> float:
    """Mean of the picture's red; an empty one has none."""
    script = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let s = 0;"
    script += " for (let i = 0; i < d.length; i += 4) s += d[i]; return s / (d.length / 4); }"
    return page.locator(canvas).evaluate(script)


def test_record_clone_listen(page: Page, tmp_path: Path) -> None:
    page.get_by_text("Add a voice").click()
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#recorded")).to_have_text(re.compile(r"^[5-9]\.\d s"), timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_label("Name").fill("Fake microphone")
    save = page.get_by_role("button", name="Save this voice")
    expect(save).to_be_disabled()
    page.locator("#consent").check()
    save.click()
    expect(page.locator("#voice option:checked")).to_have_text(re.compile("Fake microphone"), timeout=60_000)
    assert brightness(page, "#prompt-picture") > 20

    page.get_by_label("What to say").fill("Hello there. How are you?")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_have_text(re.compile("s of speech in"), timeout=60_000)
    assert brightness(page, "#speech-picture") > 5
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "speech.wav")
    samples, rate = soundfile.read(tmp_path / "speech.wav")
    assert rate == 24_000 and len(samples) > 0.1 * rate and np.abs(samples).max() > 1e-3
    expect(page.locator("#error")).to_be_hidden()


def test_another_reading_and_nothing_old_beside_an_error(page: Page) -> None:
    page.get_by_label("Quality").select_option(label="Best: best of four takes")
    asked = []
    for button in ("Speak", "Another reading"):
        with page.expect_request("**/v1/audio/speech") as request:
            page.get_by_role("button", name=button, exact=True).click()
        expect(page.locator("#speech-audio")).to_be_visible(timeout=60_000)
        asked.append([request.value.post_data_json[name] for name in ("seed", "best_of")])
    assert asked == [[0, 4], [1, 4]] and page.get_by_label("Reading").input_value() == "1"
    page.get_by_label("What to say").fill("***")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("nothing to say")
    expect(page.locator("#result")).to_be_hidden()


def test_little_is_loaded(page: Page) -> None:
    """-rP prints what; voices and recordings come on top."""
    script = "performance.getEntries().filter(e => e.transferSize !== undefined && e.name.startsWith(location.origin))"
    loaded = page.evaluate(script + ".map(e => [new URL(e.name).pathname, e.transferSize])")
    own = {path: size for path, size in loaded if not path.startswith("/v1/")}
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(f"{len(own)} requests, {sum(own.values())} bytes, loaded after {ready:.0f} ms: {own}")
    assert len(own) == 7 and sum(own.values()) < 40_000


def test_fits_a_phone(page: Page) -> None:
    page.get_by_text("Add a voice").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_mistakes_are_said_in_words(page: Page, tmp_path: Path) -> None:
    page.get_by_label("What to say").fill("")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Write what to say first.")
    page.get_by_text("Add a voice").click()
    (tmp_path / "text.wav").write_text("no recording")
    page.locator("#file").set_input_files(tmp_path / "text.wav")
    expect(page.get_by_role("alert")).to_contain_text("no recording")


def test_asks_for_a_key(
    browser: Browser, make_service: Callable[..., Service], serving: Callable[[Service], Any]
) -> None:
    with serving(make_service(keys={"anna": "0123456789abcdef"})) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("This server needs an API key").fill("0123456789abcdef")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#voice option")).to_have_count(5, timeout=60_000)
        page.close()
