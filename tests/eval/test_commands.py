from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from valle.commands.eval import configure
from valle.common.audio import load_audio, save_audio
from valle.common.errors import UserError
from valle.eval.protocols import Recording
from valle.tokenizers.codecs import build_codec, save_codec

PROMPTS = ["1688-142285-0009", "3331-159605-0005"]


def run(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    configure(parser)
    args = parser.parse_args([str(word) for word in argv])
    return args.run(args)


@pytest.fixture
def own_list(recordings: dict[str, Recording], tmp_path: Path) -> Path:
    """Two speakers with a recording each, as a user's own list."""
    lines = ["id\tpath\tspeaker\ttext"]
    lines += [f"{r.id}\t{r.path}\t{r.speaker}\t{r.text}" for r in (recordings[id_] for id_ in PROMPTS)]
    (tmp_path / "list.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "sentences.txt").write_text("The shop closes at noon.\n")
    return tmp_path / "list.tsv"


def test_tts_of_another_system_from_jobs_to_report(
    own_list: Path, recordings: dict[str, Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--list", own_list, "--sentences", tmp_path / "sentences.txt")
    assert run("jobs", *common, "--out", tmp_path / "jobs") == 0
    jobs = list(csv.DictReader((tmp_path / "jobs" / "jobs.tsv").read_text().splitlines(), delimiter="\t"))
    assert [(job["id"], job["text"]) for job in jobs] == [(f"{id_}.000", "The shop closes at noon.") for id_ in PROMPTS]
    for job in jobs:  # the other system says what it likes in the right voice
        prompt = load_audio(tmp_path / "jobs" / job["prompt"], 16_000)
        save_audio(tmp_path / "wavs" / f"{job['id']}.wav", prompt, 16_000)
    capsys.readouterr()
    assert run("tts", *common, "--wavs", tmp_path / "wavs", "--out", tmp_path / "run", "--json") == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["kind"] == "tts"
    assert (results["n"], results["seed"], results["config"]["judges"]["recogniser"]) == (2, 0, "pocketsphinx")
    assert results["metrics"]["sim"]["value"] == pytest.approx(1, abs=1e-3)
    assert results["metrics"]["wer"]["value"] >= 0.8
    assert 0 < results["context"]["recordings_wer"]["value"] < 0.8
    assert {"pocketsphinx", "Resemblyzer", "jiwer", "torch"} <= set(results["versions"])
    rows = list(csv.DictReader((tmp_path / "run" / "utterances.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["prompt"] for row in rows] == PROMPTS
    errors = sum(int(row[kind]) for row in rows for kind in ("substitutions", "deletions", "insertions"))
    assert errors / sum(int(row["words"]) for row in rows) == pytest.approx(results["metrics"]["wer"]["value"])
    assert run("report", tmp_path / "run", "--out", tmp_path / "report.html") == 0
    assert (tmp_path / "report.html").read_text().count("data:audio/mpeg") == 4  # two outputs, two voices


def test_codec_results(own_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    small = {"dim": 16, "hidden": 16, "encoder_layers": 2, "decoder_layers": [2, 2], "early_layers": 1}
    save_codec(build_codec("spectral", small), tmp_path / "codec")
    options = ("--list", own_list, "--metrics", "mcd", "pesq", "--n-q", "1", "--out", tmp_path / "out", "--keep-wavs")
    assert run("codec", "--model", tmp_path / "codec", *options) == 0
    head, own_line, cross_line = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["codec", "codes", "n_q", "bit/s", "PESQ", "MCD"]
    assert own_line.split()[:4] == ["codec", "own", "1", "500"] and cross_line.split()[1] == "cross"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    own, cross = results["conditions"]
    assert (own["n_q"], own["metrics"]["mcd"]["n"]) == (1, 2)
    assert (cross["metrics"]["mcd"]["value"], cross["metrics"]["mcd"]["excluded"]) == (None, 2)
    rows = list(csv.DictReader((tmp_path / "out" / "utterances.tsv").read_text().splitlines(), delimiter="\t"))
    assert (results["codecs"][0]["spec"]["n_q"], results["codecs"][0]["time_invariant_cosine"]["halves"]["n"]) == (4, 2)
    assert rows[2]["notes"].startswith("mcd: the speaker has no other recording; pesq: ")
    assert {path.name for path in (tmp_path / "out" / "wavs" / "own-1").iterdir()} == {f"{id_}.wav" for id_ in PROMPTS}


def test_an_interrupted_codec_evaluation_goes_on(
    own_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    small = {"dim": 16, "hidden": 16, "encoder_layers": 2, "decoder_layers": [2, 2], "early_layers": 1}
    save_codec(build_codec("spectral", small), tmp_path / "codec")
    out, scores = tmp_path / "out", tmp_path / "out" / "scores.jsonl"
    options = ("--list", own_list, "--metrics", "mcd", "pesq", "--n-q", "1", "2", "--no-cross", "--out", out)

    def evaluate() -> tuple[str, Any]:
        assert run("codec", "--model", tmp_path / "codec", *options) == 0
        shown = capsys.readouterr()
        assert [line.split(":")[0] for line in shown.err.splitlines()[:2]] == ["codec, own, n_q 1", "codec, own, n_q 2"]
        return (out / "utterances.tsv").read_text(), json.loads((out / "results.json").read_text())["conditions"]

    first, whole = evaluate(), scores.read_text()
    lines = whole.splitlines()
    assert len(lines) == 1 + 2 * 2 * 2  # utterances, metrics, quantizers
    scores.write_text("\n".join(lines[:4]) + "\n" + lines[4][:20])  # what a kill leaves
    assert evaluate() == first
    assert scores.read_text().splitlines() == [*lines[:4], lines[4][:20], *lines[4:]]
    # What is known is not measured again: a score that was changed by hand comes back.
    key, value, reason = json.loads(lines[1])
    scores.write_text(whole.replace(lines[1], json.dumps([key, 77.25, reason])))
    assert "77.25" in evaluate()[0] and value != 77.25


def test_several_codecs_side_by_side(own_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"dim": 16, "hidden": 16, "encoder_layers": 2, "decoder_layers": [2, 2], "early_layers": 1}
    for name, changes in (("one", {"n_q": 1}), ("two", {"n_q": 2, "time_invariant": False})):
        save_codec(build_codec("spectral", small | changes), tmp_path / name)
    options = ("--list", own_list, "--metrics", "mcd", "--n-q", "1", "2", "--out", tmp_path / "out", "--keep-wavs")
    plot = ("--plot", tmp_path / "plot.png", "--no-cross", "--json")
    assert run("codec", "--model", tmp_path / "one", tmp_path / "two", *options, *plot) == 0
    results = json.loads(capsys.readouterr().out)
    assert [(c["codec"], c["n_q"]) for c in results["conditions"]] == [("one", 1), ("two", 1), ("two", 2)]
    assert [c["codec"] for c in results["codecs"]] == ["one", "two"]
    assert results["codecs"][1]["time_invariant_cosine"] is None
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert (tmp_path / "out/wavs/two/own-2" / f"{PROMPTS[0]}.wav").exists()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("codec", "--keep-wavs"), "--keep-wavs needs --out"),
        (("tts", "--jobs", "0"), "--jobs must be 1 or more"),
        (("tts", "--part", "1/2"), "--part needs --out"),
        (("tts", "--part", "3/2", "--out", "x"), "--part must be I/N"),
        (("tts", "--list", "none.tsv"), r"none\.tsv is no file or folder"),
        (("report", "none", "--out", "x.html"), "none/results.json does not exist"),
        (("compare", "none"), "none/results.json does not exist"),
        (("samples", "none", "--out", "x"), "none/results.json does not exist"),
        (("tts", "--list", "plain50", "--sample", "51"), "--sample 51: the list has 50 texts to draw from"),
        (("tts", "--sample", "0"), "--sample 0: "),
        (("codec", "--model", "./none"), "none"),
        (("codec", "--list", "none.tsv"), r"none\.tsv cannot be read: No such file"),
    ],
)
def test_mistakes_are_one_line(
    argv: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=complaint) as caught:
        run(*argv)
    assert "\n" not in str(caught.value)
