"""The commands that evaluate how a model speaks, on one with random weights: all is measured, nothing understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from valle.cli import main

ID = "1688-142285-0009"


def test_decoding_is_checked(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--checks", "memory", "seams", "leaks", "--sentences", "2", "--requests", "20", "--device", "cpu"]
    assert main(["eval", "decoding", "--model", str(model), *options, "--out", str(tmp_path), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / "decoding.json").read_text())
    assert list(results["checks"]) == ["seams", "leaks", "memory"]
    tensors = results["checks"]["memory"][1]
    assert (tensors["value"], tensors["met"]) == (0, True)


@pytest.mark.parametrize("options", [["--checks", "speed"], ["--minutes", "1"], ["--requests", "0"]])
def test_checks_that_make_no_sense_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "decoding", *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_variants_are_compared_text_by_text(
    model: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.tsv").write_text(f"id\tprompt\ttext\na\t{recordings / ID}.opus\tThe shop closes at noon.\n")
    base = ["eval", "variants", "--model", str(model), "--list", str(tmp_path / "list.tsv"), "--no-reading"]
    base += ["--device", "cpu", "--out", str(tmp_path / "out")]
    variants = ["--variant", "one", "--variant", "other", "temperature=0.5", "retries=0"]
    assert main([*base, *variants, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(c["system"], c["difference"]["n"]) for c in found} == {("other", 1)}
    system = json.loads((tmp_path / "out" / "other" / "results.json").read_text())["config"]["system"]
    assert (system["sampling"], system["retries"]) == ({"temperature": 0.5}, 0)
    one, other = ((tmp_path / "out" / name / "wavs" / "a.wav").read_bytes() for name in ("one", "other"))
    assert one != other
    assert main([*base, "--variant", "alone"]) == 2
    assert main([*base, "--variant", "same", "--variant", "same", "retries=0"]) == 2
