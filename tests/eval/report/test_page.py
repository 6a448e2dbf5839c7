from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from valle.common.errors import UserError
from valle.eval.report.media import load_sound
from valle.eval.report.page import build_page, distribution
from valle.eval.report.samples import spread_out, write_samples
from valle.eval.report.templates import diff_html
from valle.eval.results import FIGURES, load_systems

MakeRow = Callable[..., dict[str, Any]]
WriteRun = Callable[..., Path]


class Outline(HTMLParser):
    """Which elements a page has, and whether each is closed."""

    VOID = ("meta", "img", "input", "br", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def page(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> str:
    rows = [
        row("a", wer=0.0, substitutions=0, diff="the cat sat"),
        row("b", wer=1.0, deletions=3, substitutions=0, diff="[-the cat sat-]", skipped=3, skipped_words="the cat sat"),
        row("c", text='Is "5 < 6 & 7"?', stop_reason="max_length", sim="", notes="recording: <silence>"),
    ]
    return build_page(load_systems([f"ours={write_run(tmp_path / 'run', rows)}"]), "A <title>")


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    addresses = [a for _, attributes in outline.found for name, a in attributes.items() if name in {"src", "href"}]
    assert addresses
    assert all(a and a.startswith(("data:", "#")) for a in addresses)
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_worst_comes_first_and_carries_its_flags(page: str) -> None:
    about = [json.loads(unescape(a["data-about"] or "")) for a in Outline(page).all("article")]
    assert [a["id"] for a in about] == ["b", "c", "a"]
    assert [a["flags"] for a in about] == [["silent", "skipped"], ["cut"], []]
    assert about[0]["sort"]["wer"] == 1.0
    assert about[1]["sort"]["sim"] is None  # not measured: the script puts it first


def test_what_is_heard_can_be_read_aloud(page: str) -> None:
    outline = Outline(page)
    assert all(image["alt"] for image in outline.all("img"))
    assert all(player["aria-label"] and "controls" in player for player in outline.all("audio"))
    assert all(chart["role"] == "img" and "median" in (chart["aria-label"] or "") for chart in outline.all("svg"))
    ids = {attributes["id"] for _, attributes in outline.found if "id" in attributes}
    for link in outline.all("a"):
        assert (link["href"] or "")[1:] in ids
    for _, attributes in outline.found:
        assert attributes.get("aria-labelledby", next(iter(ids))) in ids
    labelled = re.findall(r"<label>.*?</label>", page)
    assert len(labelled) == len(outline.all("select")) + len(outline.all("input"))


def test_texts_are_shown_not_run(page: str) -> None:
    assert "A &lt;title&gt;" in page
    assert "Is &#34;5 &lt; 6 &amp; 7&#34;?" in page
    assert "&lt;silence&gt;" in page


def test_two_systems_share_a_card(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", [row("x"), row("y", wer=0.9)])
    b = write_run(tmp_path / "b", [row("x"), row("y")])
    page = build_page(load_systems([a, b]), "Two", max_sounds=2)
    assert page.count("<article") == 2
    assert page.count("<h4>a</h4>") == page.count("<h4>b</h4>") == 2
    assert page.count('<audio controls preload="none" aria-label="a: y"') == 1
    assert 'aria-label="a: x"' not in page, "more sounds than were asked for"


def test_results_that_cannot_be_read_are_named(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row("x")], sounds=False)
    assert load_systems([run / "results.json"])[0].name == "run"
    with pytest.raises(UserError, match="two systems are called 'run'"):
        load_systems([run, run])
    with pytest.raises(UserError, match="none/results.json does not exist"):
        load_systems([tmp_path / "none"])
    (run / "results.json").write_text("{")
    with pytest.raises(UserError, match="does not hold results"):
        load_systems([run])


def test_each_condition_of_a_codec_is_a_system(tone: Callable[..., None], tmp_path: Path) -> None:
    stoi = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 1, "excluded": 0}
    conditions = [
        {"codec": "c", "time_invariant": way, "n_q": n_q, "bitrate": 500, "metrics": {"stoi": stoi}}
        for way, n_q in (("own", 1), ("own", 2), ("cross", 1))
    ]
    content = {"kind": "codec", "seed": 0, "config": {}, "versions": {}, "codecs": [{}], "conditions": conditions}
    (tmp_path / "results.json").write_text(json.dumps(content))
    header = "codec\tid\tspeaker\ttime_invariant\tn_q\tstoi\tnotes\n"
    rows = "".join(f"c\tx\tanna\t{c['time_invariant']}\t{c['n_q']}\t0.8\t\n" for c in conditions)
    (tmp_path / "utterances.tsv").write_text(header + rows)
    tone(tmp_path / "wavs" / "own-2" / "x.wav")
    one, two, cross = load_systems([f"mine={tmp_path}"])
    assert cross.name == "mine, 1 quantizers, voice of another utterance"
    assert (one.n_q, two.n_q, cross.n_q) == (1, 2, None)
    assert (one.audio("x"), two.audio("x")) == (None, tmp_path / "wavs" / "own-2" / "x.wav")
    assert build_page([one, two, cross], "Codec").count("data:audio/mpeg") == 1


def test_a_difference_is_marked_and_spoken() -> None:
    assert diff_html("the [-quick-] {+<red>+} fox") == (
        'the <del><span class="aloud">missing: </span>quick</del> '
        '<ins><span class="aloud">heard: </span>&lt;red&gt;</ins> fox'
    )


def test_a_sound_becomes_mp3_and_picture(tmp_path: Path) -> None:
    seconds, low, high = 2.0, 500.0, 6000.0
    time = np.arange(round(24_000 * seconds)) / 24_000
    wav = np.where(time < 1, np.sin(2 * np.pi * low * time), np.sin(2 * np.pi * high * time)) * 0.3
    soundfile.write(tmp_path / "a.wav", wav, 24_000)
    sound = load_sound(tmp_path / "a.wav")
    assert sound is not None
    assert sound.seconds == pytest.approx(seconds, abs=0.01)
    (tmp_path / "a.mp3").write_bytes(sound.mp3)
    decoded, rate = soundfile.read(tmp_path / "a.mp3")
    assert len(decoded) / rate == pytest.approx(seconds, abs=0.1)
    assert len(sound.mp3) < 20_000
    (tmp_path / "a.png").write_bytes(sound.png)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape[1] == pytest.approx(200, abs=2)
    loudest = picture.argmax(axis=0)
    assert loudest[50] > loudest[150] + 20, "low sounds must lie below high ones"
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    assert load_sound(tmp_path / "empty.wav") is None


def test_every_utterance_is_a_dot() -> None:
    chart = distribution(FIGURES["wer"], {"a": [0.0, 0.0, 0.5, 3.0], "b": [0.25]}, real=0.2)
    assert chart.count("<circle") == 5
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)][:2]
    assert heights[0] != heights[1], "equal values must not hide each other"
    assert 'class="real"' in chart
    assert "a: median" in chart


def test_samples_for_a_repository(row: MakeRow, write_run: WriteRun, tmp_path: Path) -> None:
    rows = [row(f"t{i}", cer=i / 10, text=f"Text {i}.") for i in range(5)]
    (system,) = load_systems([write_run(tmp_path / "run", rows)])
    assert [r.id for r in spread_out(list(system.rows.values()), 3)] == ["t0", "t2", "t4"]
    assert write_samples(system, tmp_path / "out", "Samples", per_voice=5) == 5
    assert write_samples(system, tmp_path / "out", "Samples", per_voice=3) == 3  # nothing of the other page stays
    html, markdown = ((tmp_path / "out" / name).read_text() for name in ("index.html", "README.md"))
    pointed = set(re.findall(r'src="([^"]+)"', html)) | set(re.findall(r"\]\(([^)]+)\)", markdown))
    assert {p for p in pointed if p != "index.html"} == {p.name for p in (tmp_path / "out").iterdir()} - {
        "index.html",
        "README.md",
    }
    assert "**Text 2.**" in markdown and "~~cat~~ **hat**" in markdown
    Outline(html)
