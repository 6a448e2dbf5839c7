"""What README and docs print works: every command is read by its parser, what takes seconds is run as it stands there.

Fenced blocks without a language are commands, for bash; those of Python are Python; all others name their language.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import valle
from valle.cli import build_parser, main
from valle.common.audio import load_audio, save_audio

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDINGS = Path(valle.__file__).parent / "assets" / "eval"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDERS = {"MODEL": "embedded", "CODEC": "embedded", "ALIGNER": "embedded"}
"""Names that stand for any model, and one that will do."""

OTHER_PROGRAMS = {
    "aplay": "plays sound",
    "cmp": "compares what two runs of minutes have written",
    "curl": "asks a server; tests/valle/serve does",
    "docker": "needs a Docker engine; tests/test_packaging.py reads what it would run",
    "git": "gets this repository",
    "make": "CI itself is `make test`, and makes an installation first",
    "pip": "installs; tests/test_packaging.py does",
    "srun": "needs a SLURM cluster; the command behind it is read as all are",
}
"""Programs that are not run, and why."""

NOT_RUN = {
    "bench *": "minutes, and figures of an idle machine; tests/valle/test_bench_*.py do with less",
    "clone --model my_model *": "needs what hours of training give",
    "clone --model out/tiny/model *": "needs what a minute of training gives",
    "eval *": "minutes to hours of speech; tests/eval does with less",
    "export --codec embedded --ar embedded --reusable-prompt *": "tests/valle/synthesis/test_prompt.py does",
    "export --codec embedded --ar runs/ar *": "needs what hours of training give",
    "export --codec embedded --ar runs/finetuned *": "minutes of training; tests/valle/training/test_finetune.py does",
    "export --codec embedded --ar runs/libritts-ar *": "needs what days of training give",
    "export --codec out/tiny/codec *": "needs a minute of training; tests/valle/training/test_run.py does with less",
    "export --codec runs/*": "needs a minute and more of training; tests/valle/training/test_run.py does with less",
    "import *": "needs files of the codec's authors; tests/valle/test_import.py does with small ones",
    "prepare libritts /data/LibriTTS *": "needs LibriTTS",
    "serve": "runs until it is stopped; tests/valle/serve does",
    "tokenize out/corpus/cuts.jsonl.gz --disguise *": "tests/data/test_tokenize.py does",
    "tokenize out/libritts/*": "needs LibriTTS",
    "tokenize out/untold/*": "needs a corpus without transcripts; tests/data/test_tokenize.py does",
    "tokenize out/tiny/*": "needs a minute of training; tests/valle/training/test_run.py does with less",
    "train ar --config configs/ar/embedded.yaml *": "hours",
    "train ar --config configs/ar/libritts.yaml": "days",
    "train ar --config configs/ar/tiny.yaml": "tests/valle/training/test_run.py does with less",
    "train ar --config configs/finetune.yaml *": "minutes; tests/valle/training/test_finetune.py does with less",
    "train codec *": "a minute to hours; tests/valle/training/test_run.py does with less",
    "train flow *": "hours; tests/valle/training/test_run.py does with less",
    "train nar *": "a minute; tests/valle/training/test_run.py does with less",
}
"""Commands that are read but not run, as patterns of file names are written, and why."""

SERVED = ("openai", "websockets")
"""Python that asks a server; tests/valle/serve does."""


def blocks(document: Path, *languages: str) -> list[str]:
    """Its fenced blocks in one of these languages."""
    text = document.read_text(encoding="utf-8")
    return [found[2] for found in BLOCK.finditer(text) if found[1] in languages]


def commands(script: str, folder: Path) -> list[list[str]]:
    """The words of each command that bash would run; it runs none, since there is no program on its path."""
    record = 'command_not_found_handle() { printf "%s\\0" "$#" "$@" >&3; }; exec 3>commands; set -u\n'
    script = re.sub(r"<[^<>|&\n]+>", "PLACE", script)
    bash = shutil.which("bash")
    assert bash is not None
    where = {"PATH": str(folder / "nothing"), "LC_ALL": "C.UTF-8"}
    ran = subprocess.run([bash, "-c", record + script], cwd=folder, env=where, capture_output=True, text=True)
    assert ran.returncode == 0 and not ran.stderr, f"{script}\n{ran.stderr}"
    fields, found = (folder / "commands").read_text(encoding="utf-8").split("\0")[:-1], []
    while fields:
        count = int(fields[0]) + 1
        found.append([PLACEHOLDERS.get(word, word) for word in fields[1:count]])
        del fields[:count]
    return found


def all_commands(document: Path, folder: Path) -> list[list[str]]:
    (folder / "valle").mkdir(exist_ok=True)  # into which the README goes
    return [words for script in blocks(document, "", "bash") for words in commands(script, folder)]


def why_not_run(words: list[str]) -> str | None:
    """None for a command that is run."""
    if words[0] in OTHER_PROGRAMS:
        return OTHER_PROGRAMS[words[0]]
    line = " ".join(words[1:])
    return next((why for pattern, why in NOT_RUN.items() if words[0] == "valle" and fnmatchcase(line, pattern)), None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_printed_command_is_one(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The true parsers take it, with every option and, for training, every setting."""
    monkeypatch.chdir(ROOT)
    for words in all_commands(document, tmp_path):
        line = shlex.join(words)
        if words[0] in ("valle", "srun"):
            _, *words = words[words.index("valle") :]
            if words[0] == "train":
                assert main([*words, "--print-config"]) == 0, f"{line}: {capsys.readouterr().err}"
                continue
            args, rest = build_parser(words).parse_known_args(words)
            assert not rest, line
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), line
        else:
            assert words[0] in ("python", *OTHER_PROGRAMS), line
    for block in blocks(document, "python"):
        compile(block, str(document), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_within_sentences_have_their_options(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prose = BLOCK.sub("", document.read_text(encoding="utf-8"))
    for found in re.findall(r"`valle ([^`]+)`", prose):
        words = shlex.split(found.replace("…", " "))
        first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        # Settings of a training's YAML have dots; the test above reads such commands whole.
        options = [word for word in words[first:] if word.startswith("--") and "." not in word]
        if words[0] != "COMMAND":
            assert main([*words[:first], "--help"]) == 0, found
            described = capsys.readouterr().out
            assert [option for option in options if not re.search(rf"{option}\b", described)] == [], found


def test_nothing_is_listed_that_no_document_prints(tmp_path: Path) -> None:
    lines = [words for document in DOCUMENTS for words in all_commands(document, tmp_path)]
    printed = [" ".join(words[1:]) for words in lines]
    assert {words[0] for words in lines} - {"valle", "python"} == set(OTHER_PROGRAMS)
    assert [pattern for pattern in NOT_RUN if not any(fnmatchcase(line, pattern) for line in printed)] == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the repository, with the files that a reader is taken to have."""
    for name in ("valle", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    rows = [row.split("\t") for row in (RECORDINGS / "list.tsv").read_text(encoding="utf-8").splitlines()]
    said = {row[0]: row[-1] for row in rows}
    me = load_audio(RECORDINGS / "3331-159605-0007.opus", 16000)
    for path in ("me.wav", "my_recordings/a.wav", "my_voice/a.wav"):
        Path(path).parent.mkdir(exist_ok=True)
        save_audio(path, me, 16000)
        Path(path).with_suffix(".txt").write_text(said["3331-159605-0007"] + "\n", encoding="utf-8")
    assert main(["watermark", "embed", "me.wav", "speech.mp3"]) == 0
    Path("book.txt").write_text("It was late.\n\nNobody came.\n", encoding="utf-8")
    Path("jobs.tsv").write_text("id\tprompt\tprompt_text\ttext\none\tme.wav\t\tHello.\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_takes_seconds_is_run(document: Path, place: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """One command after the other, and then the Python."""
    (place / "bash").mkdir()
    for words in all_commands(document, place / "bash"):
        if why_not_run(words) is not None:
            continue
        if words[0] == "python":
            # As in an installation: nothing but the folder says where `valle` is.
            bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            ran = subprocess.run([sys.executable, *words[1:]], env=bare, capture_output=True, text=True)
            assert ran.returncode == 0, f"{shlex.join(words)}\n{ran.stderr}"
        else:
            assert main(words[1:]) == 0, f"{shlex.join(words)}\n{capsysbinary.readouterr().err.decode()}"
    for block in blocks(document, "python"):
        if not any(name in block for name in SERVED):
            names = {"play": lambda *_: None, "wav": load_audio("me.wav", 16000)}
            exec(compile(block, str(document), "exec"), names)
