"""What is lost stage by stage, on real recordings and the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from valle.cli import main
from valle.eval.protocols import Recording


@pytest.mark.slow
def test_every_stage_is_heard_and_loses_likeness(
    recordings: dict[str, Recording], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ("1688-142285-0003", "1688-142285-0009")
    rows = [f"{i}\t{recordings[i].path}\tone\t{recordings[i].text}" for i in ids]
    listed = tmp_path / "list.tsv"
    listed.write_text("\n".join(["id\tpath\tspeaker\ttext", *rows]) + "\n")
    args = ["eval", "ceilings", "--list", str(listed), "--no-clone", "--no-reading", "--out", str(tmp_path / "out")]
    assert main([*args, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert list(stages) == ["recording", "codec, 4 quantizers", "quantizer 1", "quantizer 1 + flow"]
    assert all(
        figures["wer"]["n"] == figures["sim"]["n"] == 1 for figures in stages.values()
    )  # the other is the prompt
    likeness = [figures["sim"]["value"] for figures in stages.values()]
    assert likeness[0] > likeness[1] > likeness[2] > 0.5
    assert stages["recording"]["cer"]["value"] < 0.5
    table = (tmp_path / "out" / "utterances.tsv").read_text().splitlines()
    assert len(table) == 1 + len(stages)
    assert {line.split("\t")[0] for line in table[1:]} == {ids[1]}
