from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from valle.eval.cli import add_eval_commands
from valle.eval.lists import Recording
from valle.tokenizers.audio import load_audio, save_audio
from valle.tokenizers.codecs import build_codec, save_codec
from valle.tokenizers.errors import UserError

PROMPTS = ["1688-142285-0009", "3331-159605-0005"]


def run(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_eval_commands(parser.add_subparsers(required=True))
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


def test_tts_of_another_system_from_jobs_to_results(
    own_list: Path, recordings: dict[str, Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("tts", "--list", own_list, "--sentences", tmp_path / "sentences.txt")
    assert run(*common, "--list-jobs") == 0
    jobs = list(csv.DictReader(capsys.readouterr().out.splitlines(), delimiter="\t"))
    assert [job["id"] for job in jobs] == [f"{id_}.000" for id_ in PROMPTS]
    for job in jobs:  # the other system says what it likes in the right voice
        assert job["text"] == "The shop closes at noon."
        save_audio(tmp_path / "wavs" / f"{job['id']}.wav", load_audio(job["prompt"], 16_000), 16_000)

    def evaluate(out: Path) -> dict[str, Any]:
        assert run(*common, "--wavs", tmp_path / "wavs", "--out", out, "--json") == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads((out / "results.json").read_text())
        return printed

    results = evaluate(tmp_path / "first")
    assert results["kind"] == "tts"
    assert (results["n"], results["seed"], results["config"]["recogniser"]) == (2, 0, "pocketsphinx")
    assert results["metrics"]["sim"]["value"] == pytest.approx(1, abs=1e-3)
    assert results["metrics"]["wer"]["value"] >= 0.8
    assert 0 < results["context"]["recordings_wer"]["value"] < 0.8
    assert {"pocketsphinx", "Resemblyzer", "jiwer", "torch"} <= set(results["versions"])
    rows = list(csv.DictReader((tmp_path / "first" / "utterances.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["prompt"] for row in rows] == PROMPTS
    errors = sum(int(row[kind]) for row in rows for kind in ("substitutions", "deletions", "insertions"))
    assert errors / sum(int(row["words"]) for row in rows) == pytest.approx(results["metrics"]["wer"]["value"])

    assert evaluate(tmp_path / "second") == results
    assert (tmp_path / "second" / "utterances.tsv").read_bytes() == (tmp_path / "first" / "utterances.tsv").read_bytes()


def test_codec_results(own_list: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    small = {"dim": 16, "hidden": 16, "encoder_layers": 2, "decoder_layers": [2, 2], "early_layers": 1}
    save_codec(build_codec("spectral", small), tmp_path / "codec")
    options = ("--list", own_list, "--metrics", "mcd", "pesq", "--n-q", "1", "--out", tmp_path / "out", "--keep-wavs")
    assert run("codec", "--model", tmp_path / "codec", *options) == 0
    assert "n_q 1, 500 bit/s, own" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    own, cross = results["conditions"]
    assert (own["n_q"], own["metrics"]["mcd"]["n"]) == (1, 2)
    assert (cross["metrics"]["mcd"]["value"], cross["metrics"]["mcd"]["excluded"]) == (None, 2)
    rows = list(csv.DictReader((tmp_path / "out" / "utterances.tsv").read_text().splitlines(), delimiter="\t"))
    assert rows[2]["notes"].startswith("mcd: the speaker has no other recording; pesq: ")
    assert {path.name for path in (tmp_path / "out" / "wavs" / "own-1").iterdir()} == {f"{id_}.wav" for id_ in PROMPTS}


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("tts", "--keep-wavs"), "--keep-wavs needs --out"),
        (("tts", "--jobs", "0"), "--jobs must be 1 or more"),
        (("tts", "--list", "none.tsv"), r"none\.tsv does not exist"),
        (("codec", "--model", "./none"), "none"),
        (("codec", "--list", "none.tsv"), r"none\.tsv does not exist"),
    ],
)
def test_mistakes_are_one_line(argv: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        run(*argv)
    assert "\n" not in str(caught.value)
