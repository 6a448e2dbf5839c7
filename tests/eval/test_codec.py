from __future__ import annotations

from pathlib import Path

import pytest
import torch

from valle.common.audio import load_audio
from valle.common.errors import UserError
from valle.eval.codec import CROSS, OWN, Consistency, evaluate_codec, measure_consistency, plot_consistency
from valle.eval.judges.similarity import build_speaker_model
from valle.eval.protocols import Recording
from valle.tokenizers.codecs import SpeechCodec, SpeechCodes, build_codec
from valle.tokenizers.codecs.autoencoder import AutoencoderCodec

SMALL = {"dim": 16, "hidden": 16, "encoder_layers": 2, "decoder_layers": [2, 2], "codebook_size": 32, "early_layers": 1}
TWO_SPEAKERS = ["1688-142285-0002", "1688-142285-0009", "3331-159605-0004"]


@pytest.fixture
def codec() -> SpeechCodec:
    """Untrained: what is tested is the measuring."""
    torch.manual_seed(0)
    return build_codec("spectral", SMALL).eval()


@pytest.fixture
def utterances(recordings: dict[str, Recording]) -> list[Recording]:
    return [recordings[id_] for id_ in TWO_SPEAKERS]


def test_what_is_reported(codec: SpeechCodec, utterances: list[Recording]) -> None:
    report = evaluate_codec(codec, utterances, n_qs=(1, 4), metrics=("mcd", "stoi"))
    assert [(s.time_invariant, s.n_q) for s in report.summaries] == [(OWN, 1), (OWN, 4), (CROSS, 1), (CROSS, 4)]
    assert [s.bitrate for s in report.summaries] == [250, 1000, 250, 1000]  # 50 frames/s, 5 bits a code
    assert report.time_invariant_bits == 80  # 8 codes of 1024
    codebooks = codec.spec.n_q * 32 * 8 + codec.spec.n_time_invariant * 1024 * 16
    statistics = 2 * 128  # of TIRE's BatchNorm
    contrast = codec.spec.n_q * (321 + 1)  # level of each bin, and factor
    assert report.cost.parameters == sum(p.numel() for p in codec.parameters()) + codebooks + statistics + contrast
    assert report.consistency is not None and len(report.consistency.halves) == 3
    assert report.seconds == pytest.approx(sum(u.seconds for u in utterances), abs=0.01)
    assert report.encode_rtf > 0
    assert all(s.decode_rtf > 0 for s in report.summaries)
    assert len(report.rows) == 4 * len(utterances)
    assert report.summaries[0].metrics["mcd"].n == 3


def test_cross_uses_the_codes_of_the_same_speakers_other_utterance(
    codec: SpeechCodec, utterances: list[Recording], tmp_path: Path
) -> None:
    report = evaluate_codec(codec, utterances, n_qs=(2,), metrics=("mcd",), wav_folder=tmp_path)
    rows = {(row.texts["time_invariant"], row.id): row for row in report.rows}
    assert rows[CROSS, TWO_SPEAKERS[2]].numbers["mcd"] is None
    assert rows[CROSS, TWO_SPEAKERS[2]].texts["notes"] == "mcd: the speaker has no other recording"
    assert (report.summaries[1].metrics["mcd"].n, report.summaries[1].metrics["mcd"].excluded) == (2, 1)

    wavs = [load_audio(u.path, 16_000) for u in utterances[:2]]
    with torch.inference_mode():
        first, second = (codec.encode(wav[None, None]) for wav in wavs)
        swapped = codec.decode(SpeechCodes(first.codes[:, :2], first.lengths, second.time_invariant))[0, 0]
    assert first.time_invariant is not None
    assert not torch.equal(first.time_invariant, second.time_invariant), "the test would not see a missing swap"
    kept = load_audio(tmp_path / "cross-2" / f"{TWO_SPEAKERS[0]}.wav", 16_000)
    assert torch.allclose(kept, swapped[: len(wavs[0])].clamp(-1, 1), atol=1e-4)
    assert not (tmp_path / "cross-2" / f"{TWO_SPEAKERS[2]}.wav").exists()


def test_a_codec_without_time_invariant_codes_has_nothing_to_swap(utterances: list[Recording]) -> None:
    plain = build_codec("spectral", {**SMALL, "time_invariant": False}).eval()
    report = evaluate_codec(plain, utterances[:1], metrics=("mcd",), speaker_model=build_speaker_model())
    assert [(s.time_invariant, s.n_q) for s in report.summaries] == [(OWN, 1), (OWN, 2), (OWN, 4)]
    assert report.time_invariant_bits == 0 and report.consistency is None
    assert "sim" in report.summaries[0].metrics


def test_consistency_compares_halves_and_speakers(
    codec: SpeechCodec, utterances: list[Recording], tmp_path: Path
) -> None:
    assert isinstance(codec, AutoencoderCodec)
    wavs = [load_audio(u.path, 16_000)[:16000] for u in utterances]
    twice = [torch.cat((wav, wav)) for wav in wavs]
    found = measure_consistency(codec, twice, [u.speaker for u in utterances])
    assert found.halves == pytest.approx([1, 1, 1], abs=1e-5)
    padded = [torch.cat((wav[:8000] * 0.1, wav, wav, wav[:8000])) for wav in wavs]
    assert measure_consistency(codec, padded, ["", "", ""], 1.0).halves == pytest.approx([1, 1, 1], abs=1e-5)
    assert max(measure_consistency(codec, padded, ["", "", ""]).halves) < 1 - 1e-4
    with torch.inference_mode():
        voices = [codec.representation(wav[None, None])[0] for wav in wavs]
    # The first two share a speaker, so that the third is the other of both, and theirs is the first.
    pairs = [(0, 2), (1, 2), (2, 0)]
    expected = [float(torch.cosine_similarity(voices[a], voices[b], dim=0)) for a, b in pairs]
    assert found.others == pytest.approx(expected, abs=1e-5)
    plot_consistency(tmp_path / "new/plot.png", {"a": found, "b": Consistency([0.5], [])})
    assert (tmp_path / "new/plot.png").stat().st_size > 10_000


def test_the_same_call_gives_the_same_rows(codec: SpeechCodec, utterances: list[Recording]) -> None:
    a, b = (evaluate_codec(codec, utterances, n_qs=(1,), metrics=("mcd",), seed=3) for _ in range(2))
    assert a.rows == b.rows
    assert a.summaries[0].metrics == b.summaries[0].metrics


def test_quantizers_that_are_not_there_are_refused(codec: SpeechCodec, utterances: list[Recording]) -> None:
    with pytest.raises(UserError, match="has 4 quantizers and cannot decode with 8"):
        evaluate_codec(codec, utterances, n_qs=(1, 8))
