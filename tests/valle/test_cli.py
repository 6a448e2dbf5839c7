"""The command as users meet it: help, one-line errors, exit codes, JSON."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

import valle
from valle.cli import COMMANDS, main
from valle.common.audio import resample

ROOT = Path(__file__).parents[2]
RATE = 16000
Record = Callable[..., Path]
HELP_PAGES = [
    *([name] for name in COMMANDS),
    *(["codec", verb] for verb in ("encode", "decode", "reconstruct")),
    *(["train", kind] for kind in ("codec", "ar", "nar", "aligner")),
    *(["prepare", corpus] for corpus in ("folder", "libritts", "synthetic", "bpe")),
    *(["eval", what] for what in ("tts", "jobs", "variants", "report", "compare", "samples", "listening")),
    *(["eval", what] for what in ("ceilings", "codec", "decoding")),
    *(["bench", what] for what in ("decode", "serve", "codec", "train")),
]


@pytest.fixture
def good_prompt(record: Record, speech: torch.Tensor) -> Path:
    return record(speech[: 3 * RATE], name="good.wav")


def python(*command: str | Path, close_stdout: bool = False) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if close_stdout:
        process.stdout.close()
        process.stdout = None
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize("page", [[], *HELP_PAGES], ids=" ".join)
def test_help_fits_a_screen_and_shows_an_example(page: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*page, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 42
    assert max(map(len, lines)) <= 120
    assert "example" in "\n".join(lines)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"valle {valle.__version__}\n"


@pytest.mark.parametrize("page", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(page: list[str]) -> None:
    """One process for each command: what one imports another would not see."""
    code = f"import sys; from valle.cli import main; main({[*page, '--help']}); print(*sys.modules)"
    loaded = set(python("-c", code).stdout.splitlines()[-1].split())
    assert "argparse" in loaded
    assert loaded & {"torch", "numpy", "lightning", "lhotse", "transformers", "matplotlib", "soundfile"} == set()


def test_clone_writes_speech_and_json(
    model: Path, good_prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "new" / "out.wav", tmp_path / "plot.png"
    arguments = ["clone", "--model", str(model), "--prompt", str(good_prompt), "--text", "Hello, $5 world."]
    assert main([*arguments, "--out", str(out), "--plot", str(plot), "--json", "--seed", "3", "--device", "cpu"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["out"] == str(out)
    assert facts["seed"] == 3
    assert facts["stop_reason"] == "end_of_text"
    info = soundfile.info(out)
    assert info.samplerate == facts["sample_rate"] == RATE
    assert info.frames / RATE == pytest.approx(facts["seconds"], abs=1e-3)
    assert plot.read_bytes().startswith(b"\x89PNG")

    again, other = tmp_path / "again.wav", tmp_path / "other.wav"
    assert main([*arguments, "--out", str(again), "--seed", "3", "--device", "cpu"]) == 0
    assert main([*arguments, "--out", str(other), "--seed", "4", "--device", "cpu"]) == 0
    assert again.read_bytes() == out.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("kind", ["stereo", "8 kHz", "96 kHz", "10 minutes"])
def test_unusual_prompts_work(model: Path, speech: torch.Tensor, record: Record, tmp_path: Path, kind: str) -> None:
    rates = {"8 kHz": 8000, "96 kHz": 96000}
    wav = speech.repeat(100) if kind == "10 minutes" else speech
    if kind in rates:
        wav = torch.from_numpy(resample(wav.numpy(), RATE, rates[kind]))
    prompt = record(torch.stack((wav, wav)) if kind == "stereo" else wav, rates.get(kind, RATE))
    arguments = ["clone", "--model", str(model), "--prompt", str(prompt), "--text", "Yes.", "--out"]
    assert main([*arguments, str(tmp_path / "out.wav")]) == 0
    assert soundfile.info(tmp_path / "out.wav").frames > 0


def unwritable(tmp_path: Path) -> str:
    (tmp_path / "file").write_text("")
    return str(tmp_path / "file" / "out.wav")


MISTAKES: dict[str, tuple[dict[str, str | None], str]] = {
    "silent": ({"--prompt": "silent.wav"}, "is silent"),
    "empty": ({"--prompt": "empty.wav"}, "holds no audio samples"),
    "short": ({"--prompt": "short.wav"}, "at least 1 s"),
    "corrupt": ({"--prompt": "corrupt.wav"}, "as audio"),
    "missing": ({"--prompt": "missing.wav"}, "not found"),
    "no prompt": ({"--prompt": None}, "--prompt is missing"),
    "no text": ({"--text": None}, "--text"),
    "empty text": ({"--text": "  "}, "empty"),
    "language": ({"--language": "klingon"}, "unknown language"),
    "unreadable": ({"--text": "***"}, "nothing to say"),
    "unwritable": ({"--out": "file/out.wav"}, "cannot write"),
    "a folder": ({"--out": "folder.wav"}, "cannot write"),
    "format": ({"--out": "out.docx"}, "must end in"),
    "picture": ({"--plot": "plot.wav"}, "must end in .png"),
    "no model": ({"--model": "nowhere"}, "not found: nowhere"),
    "device": ({"--device": "abacus"}, "abacus"),
    "temperature": ({"--temperature": "-1"}, "temperatures must be above 0"),
    "top-k": ({"--top-k": "many"}, "--top-k"),
    "seed": ({"--seed": "-1"}, "--seed"),
    "threads": ({"--threads": "0"}, "from 1 to 1024"),
    "loudness": ({"--loudness": "-3"}, "-40 to -10 LUFS"),
    "format of a stream": ({"--stream-format": "mp3"}, "belongs to --stream"),
    "nothing to retry": ({"--retry-faulty": ""}, "no out.wav.pieces"),
    "unknown": ({"--pitch": "2"}, "--pitch"),
    "text file": ({"--text": None, "--text-file": "missing.txt"}, "missing.txt"),
    "binary text": ({"--text": None, "--text-file": "silent.wav"}, "not UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_code_2(
    mistake: str,
    model: Path,
    good_prompt: Path,
    speech: torch.Tensor,
    record: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    record(torch.zeros(RATE * 3), name="silent.wav")
    record(torch.zeros(0), name="empty.wav")
    record(speech[RATE : RATE + RATE // 5], name="short.wav")
    (tmp_path / "corrupt.wav").write_bytes(good_prompt.read_bytes()[100:])
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.wav").mkdir()
    options: dict[str, str | None] = {
        "--model": str(model),
        "--prompt": str(good_prompt),
        "--text": "Hello.",
        "--out": "out.wav",
    }
    changes, message = MISTAKES[mistake]
    given = [word for name, value in (options | changes).items() if value is not None for word in (name, value) if word]
    assert main(["clone", *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("valle: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    "words", [[], ["sing"], ["clone", "extra"], ["codec"], ["train"], ["train", "ar", "--config", "no.yaml"]], ids=str
)
def test_malformed_commands_give_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1


def test_output_is_tried_before_the_model_is_loaded(
    good_prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model does not exist either: the first complaint is about what was checked first."""
    arguments = ["clone", "--model", "nowhere", "--prompt", str(good_prompt), "--text", "Yes."]
    (tmp_path / "file").write_text("")
    assert main([*arguments, "--out", str(tmp_path / "file" / "out.wav")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "missing", "extra"),
    [
        (["clone", "--prompt", "x.wav", "--text", "Yes.", "--out", "out.wav", "--best-by", "cer"], "jiwer", "eval"),
        (["eval", "report", "results", "--out", "out.html"], "jinja2", "eval"),
        (["serve", "--voices", "voices"], "fastapi", "serve"),
        (["train", "ar", "--config", "configs/ar/tiny.yaml"], "lightning", "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    words: list[str], missing: str, extra: str, good_prompt: Path
) -> None:
    """In a process of its own, where the package cannot be imported."""
    words = [str(good_prompt) if word == "x.wav" else word for word in words]
    code = f"import os, sys; sys.modules[{missing!r}] = None; os.chdir({str(good_prompt.parent)!r})"
    done = python("-c", f"{code}; from valle.cli import main; sys.exit(main({words!r}))")
    assert done.returncode == 2, done.stderr
    assert missing in done.stderr and f"pip install '.[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_noticed_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model does not exist either. What was made ready for voices is taken back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["serve", "--port", port, "--model", "nowhere", "--voices", str(tmp_path / "new" / "voices")]
        assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in shown and shown.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_wrong_model_is_noticed_before_what_takes_long_is_imported() -> None:
    words = ["train", "ar", "--config", "configs/ar/tiny.yaml", "--model", "runs/typo/"]
    code = f"import sys; from valle.cli import main; print(main({words}), {{'torch', 'lightning'}} & set(sys.modules))"
    done = python("-c", code)
    assert done.stdout == "2 set()\n"
    assert done.stderr.startswith("valle: there is no folder runs/typo") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("corpus", ["folder", "synthetic"])
@pytest.mark.parametrize("out", ["taken", "taken/corpus"])
def test_a_file_in_the_place_of_a_folder_is_named(
    corpus: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert main(["prepare", corpus, str(tmp_path), "--out", str(tmp_path / out)]) == 2
    error = f"valle: cannot write into {tmp_path / out}: {tmp_path / 'taken'} is a file; name a folder\n"
    assert capsys.readouterr().err == error
    assert (tmp_path / "taken").read_text() == "mine"


def test_no_empty_folder_is_left_by_a_failure(
    model: Path, good_prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "a" / "b", tmp_path / "there"):
        base = ["clone", "--prompt", str(good_prompt), "--text", "Yes.", "--out", str(folder / "out.wav")]
        assert main([*base, "--model", "nowhere"]) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"good.wav", "there"}
    assert main([*base, "--model", str(model), "--device", "cpu"]) == 0
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["out.wav"]


def test_jobs_go_on_after_a_failure(
    model: Path, good_prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ("id", "prompt", "prompt_text", "text"),
        ("a", good_prompt.name, "", "Yes."),
        ("b", "missing.wav", "", "No."),
        ("c", str(good_prompt), "", 'He said "no".'),
    ]
    (tmp_path / "jobs.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    table, out = str(tmp_path / "jobs.tsv"), tmp_path / "out"
    assert main(["clone", "--model", str(model), "--jobs", table, "--out-dir", str(out), "--json"]) == 2
    shown = capsys.readouterr()
    assert [json.loads(line)["out"] for line in shown.out.splitlines()] == [str(out / "a.wav"), str(out / "c.wav")]
    assert "job 'b'" in shown.err
    assert "1 of 3 jobs failed" in shown.err
    assert {p.name for p in out.iterdir()} == {"a.wav", "c.wav"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "column 'id' is missing"),
        ("id\tprompt\ttext\n", "column 'prompt_text' is missing"),
        ("id\tprompt\tprompt_text\ttext\n", "no rows"),
        ("id\tprompt\tprompt_text\ttext\na\tb\n", "line 2: 2 columns"),
        ("id\tprompt\tprompt_text\ttext\n../a\tb\tc\td\n", "cannot be an id"),
        ("id\tprompt\tprompt_text\ttext\na\tb\tc\td\na\tb\tc\td\n", "line 3: id 'a' is there twice"),
    ],
)
def test_a_wrong_job_table_is_refused(
    table: str, message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jobs.tsv").write_text(table)
    assert main(["clone", "--jobs", str(tmp_path / "jobs.tsv"), "--out-dir", str(tmp_path), "--model", str(model)]) == 2
    assert message in capsys.readouterr().err


def test_a_codec_is_calibrated_on_a_corpus(
    model: Path, good_prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "speech").mkdir()
    for name in "abc":
        shutil.copy(good_prompt, tmp_path / "speech" / f"{name}.wav")
        (tmp_path / "speech" / f"{name}.txt").write_text("Any words.")
    assert main(["prepare", "folder", str(tmp_path / "speech"), "--out", str(tmp_path / "corpus")]) == 0
    (cuts,) = (tmp_path / "corpus").glob("cuts.jsonl.gz")
    out = tmp_path / "calibrated"
    assert main(["codec", "calibrate", str(cuts), str(out), "--model", str(model), "--utterances", "2"]) == 0
    assert "with 1 to" in capsys.readouterr().out
    direct, calibrated = tmp_path / "direct.wav", tmp_path / "calibrated.wav"
    for folder, path in ((model, direct), (out, calibrated)):
        assert main(["codec", "reconstruct", str(good_prompt), str(path), "--model", str(folder), "--n-q", "1"]) == 0
    assert direct.read_bytes() != calibrated.read_bytes()
    assert main(["codec", "calibrate", str(cuts), str(out), "--model", str(model), "--utterances", "0"]) == 2
    assert "--utterances" in capsys.readouterr().err


def test_codes_in_a_file_decode_to_what_reconstruction_gives(
    model: Path, make_bundle: Callable, good_prompt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, decoded, direct = (tmp_path / name for name in ("a.codes", "decoded.wav", "direct.wav"))
    which = ["--model", str(model), "--n-q", "1"]
    assert main(["codec", "encode", str(good_prompt), str(codes), *which]) == 0
    assert main(["codec", "decode", str(codes), str(decoded), *which]) == 0
    assert main(["codec", "reconstruct", str(good_prompt), str(direct), *which]) == 0
    assert decoded.read_bytes() == direct.read_bytes()
    assert soundfile.info(decoded).frames == soundfile.info(good_prompt).frames
    capsys.readouterr()

    assert main(["info", str(codes), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 3.0

    torch.manual_seed(1)
    other = make_bundle()
    torch.nn.init.normal_(next(other.codec.parameters()))
    other.save(tmp_path / "other")
    assert main(["codec", "decode", str(codes), str(decoded), "--model", str(tmp_path / "other")]) == 2
    assert "another codec" in capsys.readouterr().err
    assert main(["codec", "reconstruct", str(good_prompt), str(direct), "--model", str(model), "--n-q", "3"]) == 2
    assert "--n-q must be 1 to 2" in capsys.readouterr().err


def test_info_describes_a_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "model"
    assert facts["codec"]["n_q"] == 2
    assert facts["provenance"]["license"] == "Apache-2.0"


def test_interruption_gives_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("valle.commands.info.describe", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "valle: interrupted\n"


def test_a_reader_that_has_gone_is_no_error(model: Path) -> None:
    done = python("-m", "valle", "info", model, close_stdout=True)
    assert done.stderr == ""
    assert done.returncode == 141
