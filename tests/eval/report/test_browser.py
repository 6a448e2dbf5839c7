"""The pages in a real browser, without a network: what no parser of HTML can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from valle.eval.report.listening import make_kit
from valle.eval.report.page import build_page
from valle.eval.results import load_systems

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow

MakeRow = Callable[..., dict[str, Any]]
WriteRun = Callable[..., Path]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_report_fits_sorts_filters_and_plays(
    browser: Any, width: int, height: int, row: MakeRow, write_run: WriteRun, tmp_path: Path
) -> None:
    long = "A rather long sentence with one-word-that-is-so-long-that-it-hardly-fits-a-phone, and then some more."
    rows = [row("a", wer=0.1, text=long), row("b", wer=0.9, skipped=1), row("c", wer=0.5, speaker="bert")]
    runs = [write_run(tmp_path / name, rows) for name in ("first", "second")]
    (tmp_path / "report.html").write_text(build_page(load_systems(runs), "Report"))
    page = browser.new_context(viewport={"width": width, "height": height}, offline=True).new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{tmp_path / 'report.html'}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.locator("article h3").first

    def shown() -> int:
        return page.locator("article:not([hidden])").count()

    assert page.locator("article").first.get_attribute("data-about").find('"b"') > 0
    page.select_option("select[name=sort]", "id")
    assert first.inner_text() == long
    page.select_option("select[name=speaker]", "bert")
    assert (shown(), page.inner_text("#count")) == (1, "1 of 3 shown")
    page.select_option("select[name=speaker]", "")
    page.check("input[value=skipped]")
    assert shown() == 1
    page.uncheck("input[value=skipped]")
    page.fill("input[name=words]", "hardly")
    assert shown() == 1
    playing = "document.querySelector('article:not([hidden]) audio')"
    page.evaluate(f"async () => {{ {playing}.muted = true; await {playing}.play(); }}")
    page.wait_for_function(f"{playing}.currentTime > 0.2")
    assert page.evaluate(f"{playing}.duration") == pytest.approx(1, abs=0.2)
    assert errors == []


def test_a_listener_answers_with_the_keyboard_and_saves(
    browser: Any, row: MakeRow, write_run: WriteRun, tmp_path: Path
) -> None:
    systems = load_systems([write_run(tmp_path / "ours", [row("a"), row("b")])])
    make_kit(systems, tmp_path / "test", tmp_path / "key.json", "smos", texts=2)
    page = browser.new_context(viewport={"width": 390, "height": 844}, accept_downloads=True).new_page()
    page.goto(f"file://{tmp_path / 'test' / 'index.html'}")
    page.click("#begin")
    assert "name" in page.inner_text("#warning")
    page.fill("#listener", 'Ann "A", B.')
    page.click("#begin")
    for score in ("5", "2"):
        page.keyboard.press(score)
        assert page.is_disabled("#next"), "an answer without listening"
        page.evaluate("document.getElementById('sound').dispatchEvent(new Event('ended'))")
        page.click("#next")
    with page.expect_download() as saved:
        page.click("#save")
    saved.value.save_as(tmp_path / "answers.csv")
    from valle.eval.report.listening import read_ratings

    ratings = read_ratings([tmp_path / "answers.csv"], tmp_path / "key.json")
    assert sorted(rating.score for rating in ratings) == [2, 5]
    assert {rating.listener for rating in ratings} == {'Ann "A", B.'}
