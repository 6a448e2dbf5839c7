from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lhotse import CutSet
from lhotse.utils import fastcopy
from torch import Tensor

from valle.common.errors import UserError
from valle.data.batch import collate
from valle.data.corpus import read_corpus
from valle.data.cuts import cut_audio, load_cuts
from valle.data.prepare import Limits, prepare_entries, prepare_folder
from valle.data.shards import TokenDataset, TokenHeader, read_metadata, shard_path
from valle.data.tokenize import tokenize
from valle.tokenizers.codecs import load_codec
from valle.tokenizers.text import PhonemeTokenizer

TEXT = PhonemeTokenizer()


class EvenAligner:
    """Gives every phoneme the same share of the frames, and gives up on texts of more phonemes than `most`."""

    def __init__(self, most: int = 10_000) -> None:
        self.vocab = TEXT.vocab
        self.most = most
        self.fingerprint = f"even-{most}"

    def align(
        self, phonemes: Sequence[Sequence[int]], wavs: Sequence[Tensor], n_frames: Sequence[int]
    ) -> list[list[int] | None]:
        assert all(-(-len(w) // 320) == n for w, n in zip(wavs, n_frames, strict=True))
        return [
            [n * (i + 1) // len(p) - n * i // len(p) for i in range(len(p))] if len(p) <= self.most else None
            for p, n in zip(phonemes, n_frames, strict=True)
        ]


@pytest.fixture(scope="module")
def done(cuts: Path, codec_dirs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cuts tokenized without interruption, in shards of 6."""
    out = tmp_path_factory.mktemp("done") / "tokens"
    tokenize(cuts, out, codec_dirs[0], TEXT, aligner=EvenAligner(), shard_size=6)
    return out


def same(a: TokenDataset, b: TokenDataset) -> bool:
    if a.ids != b.ids or a.speakers != b.speakers:
        return False
    pairs = [(a[i], b[i]) for i in range(len(a))]
    return all(torch.equal(x.codes, y.codes) and torch.equal(x.phonemes, y.phonemes) for x, y in pairs)


def test_every_cut_becomes_an_utterance(cuts: Path, done: Path, codec_dirs: tuple[Path, Path]) -> None:
    tokens, codec = TokenDataset([done]), load_codec(codec_dirs[0])
    loaded = list(load_cuts(cuts))
    assert tokens.ids == [c.id for c in loaded]
    assert tokens.header.codec == codec.spec and tokens.header.text_tokenizer == TEXT.to_dict()
    for i in (0, 13, 24):  # in different batches and shards
        item, cut = tokens[i], loaded[i]
        text = cut.supervisions[0].text
        assert (item.text, item.speaker) == (text, cut.supervisions[0].speaker)
        assert item.phonemes.tolist() == TEXT.encode(text)
        with torch.inference_mode():
            alone = codec.encode(cut_audio(cut, 16000)[None, None])
        assert alone.time_invariant is not None and item.time_invariant is not None
        assert item.codes.shape == alone.codes[0].shape and tokens.frames[i] == item.codes.shape[1]
        assert (item.codes == alone.codes[0]).float().mean() > 0.99
        assert (item.time_invariant == alone.time_invariant[0]).float().mean() > 0.8
    collate([tokens[i] for i in range(len(tokens))])  # durations and lengths agree


@pytest.mark.slow
def test_faster_speech_is_that_of_other_speakers(
    cuts: Path, done: Path, codec_dirs: tuple[Path, Path], tmp_path: Path
) -> None:
    tokenize(cuts, tmp_path / "fast", codec_dirs[0], TEXT, aligner=EvenAligner(), shard_size=6, speed=1.25)
    both = TokenDataset([done, tmp_path / "fast"])
    half = len(both) // 2
    assert both.ids[half:] == both.ids[:half]
    assert both.speakers[half:] == [f"{name}@1.25" for name in both.speakers[:half]]
    shares = both.frames[half:] / both.frames[:half]
    assert (abs(shares - 0.8) < 0.02).all()
    with pytest.raises(UserError, match="of speed 1.25"):
        tokenize(cuts, tmp_path / "fast", codec_dirs[0], TEXT, aligner=EvenAligner(), shard_size=6)


def test_tokens_for_a_flow_need_no_text_and_may_be_disguised(
    cuts: Path, done: Path, codec_dirs: tuple[Path, Path], tmp_path: Path
) -> None:
    silent = tmp_path / "silent.jsonl.gz"
    CutSet.from_cuts(cut.map_supervisions(lambda s: fastcopy(s, text="")) for cut in load_cuts(cuts)).to_file(silent)
    options = {"aligner": EvenAligner(), "shard_size": 6, "has_text": False}
    tokenize(silent, tmp_path / "plain", codec_dirs[0], TEXT, **options)
    tokenize(silent, tmp_path / "disguised", codec_dirs[0], TEXT, disguise=1.4, **options)
    plain, disguised = TokenDataset([done, tmp_path / "plain"]), TokenDataset([tmp_path / "disguised"])
    half = len(plain) // 2
    changed = 0
    for index in range(half):
        true, bare, other = plain[index], plain[half + index], disguised[index]
        assert torch.equal(bare.codes, true.codes)
        assert bare.durations is not None and bare.durations.tolist() == [bare.codes.shape[1]]
        assert other.time_invariant is not None and torch.equal(other.time_invariant, true.time_invariant)
        changed += int((other.codes[0] != true.codes[0]).sum())
        same = other.codes[0] == true.codes[0]
        assert torch.equal(other.codes[:, same], true.codes[:, same])  # what is left over is the same there
    assert changed > 0
    with pytest.raises(UserError, match="of disguise 1.4"):
        tokenize(silent, tmp_path / "disguised", codec_dirs[0], TEXT, **options)


def test_a_killed_run_goes_on_where_it_was(
    cuts: Path, done: Path, codec_dirs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    code = (
        "from valle.data.tokenize import tokenize\n"
        "from valle.tokenizers.text import PhonemeTokenizer\n"
        "if __name__ == '__main__':\n"
        f"    tokenize({str(cuts)!r}, {str(out)!r}, {str(codec_dirs[0])!r}, PhonemeTokenizer(), shard_size=1, jobs=2)\n"
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, script],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    while len(list(out.glob("shard-*"))) < 3:  # in any order: two workers write them
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # ends when the last worker has closed its stderr: they do not outlive the run
    finished = {p: p.stat().st_mtime_ns for p in out.glob("shard-*")}
    assert 3 <= len(finished) < 25
    for path in finished:
        assert len(read_metadata(path)[0]) == 1
    with pytest.raises(UserError, match=rf"has {len(finished)} of 25 shards"):
        TokenDataset([out])
    report = tokenize(cuts, out, codec_dirs[0], TEXT, shard_size=1)
    assert report.utterances == 25 and report.shards_missing == 0
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert sorted(p.name for p in out.iterdir() if not p.name.startswith("shard-")) == ["dropped.tsv", "header.json"]
    assert TokenDataset([out]).ids == TokenDataset([done]).ids


def test_parts_of_a_job_make_the_same_folder(
    cuts: Path, done: Path, codec_dirs: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    reports = [
        tokenize(cuts, out, codec_dirs[0], TEXT, aligner=EvenAligner(), shard_size=6, part=part, parts=2)
        for part in (1, 0)
    ]
    assert [r.shards_missing for r in reports] == [3, 0] and reports[1].utterances == 25
    assert same(TokenDataset([out]), TokenDataset([done]))
    assert "5 of 5" in reports[1].table()


def test_other_codecs_texts_aligners_and_cuts_are_not_mixed_in(
    cuts: Path, done: Path, codec_dirs: tuple[Path, Path], tmp_path: Path
) -> None:
    def again(cuts: Path = cuts, codec: Path = codec_dirs[0], text: PhonemeTokenizer = TEXT, **options) -> None:
        tokenize(cuts, done, codec, text, **{"aligner": EvenAligner(), "shard_size": 6, **options})

    before = {p.name: p.read_bytes() for p in done.iterdir()}
    header = TokenHeader.read(done)
    with pytest.raises(UserError, match=rf"different codecs: spectral {header.codec_hash} and spectral \w+"):
        again(codec=codec_dirs[1])
    with pytest.raises(UserError, match=rf"different text tokenizers: phonemes {TEXT.fingerprint} and phonemes \w+"):
        again(text=PhonemeTokenizer(TEXT.vocab[15:]), aligner=None)
    with pytest.raises(UserError, match=r"different aligners: even-10000 and none"):
        again(aligner=None)
    with pytest.raises(UserError, match="another text tokenizer"):
        again(text=PhonemeTokenizer(TEXT.vocab[15:]))
    with pytest.raises(UserError, match="shards of 6 cuts"):
        again(shard_size=7)
    fewer = tmp_path / "fewer.jsonl.gz"
    CutSet.from_cuts(list(load_cuts(cuts))[:5]).to_file(fewer)
    with pytest.raises(UserError, match="holds tokens of other cuts"):
        again(cuts=fewer)
    assert {p.name: p.read_bytes() for p in done.iterdir()} == before


def test_what_cannot_be_tokenized_is_reported(recordings: Path, codec_dirs: tuple[Path, Path], tmp_path: Path) -> None:
    entries = read_corpus(recordings)[:6]
    for entry in entries:
        shutil.copy(entry.path, tmp_path)
    table = tmp_path / "list.tsv"
    texts = ["", "...", *(e.text for e in entries[2:5]), "WORD " * 300]
    rows = [f"{e.id}\t{e.path.name}\ts\t{text}" for e, text in zip(entries, texts, strict=True)]
    table.write_text("\n".join(["id\tpath\tspeaker\ttext", *rows]))
    cuts = prepare_folder(table, tmp_path / "prepared", limits=Limits(allow_no_text=True)).cuts
    broken = tmp_path / entries[3].path.name
    broken.write_bytes(broken.read_bytes()[:2000])
    report = tokenize(cuts, tmp_path / "tokens", codec_dirs[0], TEXT, aligner=EvenAligner(most=1000))
    assert {d.id: d.reason for d in report.dropped} == {
        entries[0].id: "no text",
        entries[1].id: "text",
        entries[3].id: "unreadable",
        entries[5].id: "not aligned",
    }
    assert TokenDataset([tmp_path / "tokens"]).ids == [entries[2].id, entries[4].id]
    rows = (tmp_path / "tokens" / "dropped.tsv").read_text().splitlines()
    assert len(rows) == 5 and rows[0] == "id\treason\tdetail"


def test_a_run_that_makes_nothing_can_be_put_right(
    recordings: Path, codec_dirs: tuple[Path, Path], tmp_path: Path
) -> None:
    cuts = prepare_entries(read_corpus(recordings)[:2], tmp_path / "cuts", jobs=1).cuts
    with pytest.raises(UserError, match=r"every utterance was dropped.*not aligned"):
        tokenize(cuts, tmp_path / "tokens", codec_dirs[0], TEXT, aligner=EvenAligner(most=1))
    assert not list((tmp_path / "tokens").glob("shard-*"))


def test_damaged_folders_are_named(done: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokens"):
        TokenDataset([tmp_path])
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    shard = shard_path(copy, 1)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=rf"{shard.name} is damaged"):
        TokenDataset([copy])
    shard.write_bytes(whole)
    values = json.loads((copy / "header.json").read_text())
    (copy / "header.json").write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(UserError, match="format version 99"):
        TokenDataset([copy])
    (copy / "header.json").write_text("{}")
    with pytest.raises(UserError, match=r"header\.json does not describe tokens"):
        TokenDataset([copy])


@pytest.mark.parametrize("options", [{"part": 2, "parts": 2}, {"jobs": 0}, {"shard_size": 0}, {"batch_seconds": 0.0}])
def test_settings_that_cannot_work_are_refused(
    cuts: Path, codec_dirs: tuple[Path, Path], tmp_path: Path, options: dict
) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        tokenize(cuts, tmp_path / "tokens", codec_dirs[0], TEXT, **options)
    assert not (tmp_path / "tokens").exists()
