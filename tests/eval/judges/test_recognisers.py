from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from valle.common.errors import UserError
from valle.eval.judges.recognisers import build_recogniser, recogniser_names
from valle.eval.judges.text import score_text

Speech = Callable[[str], Tensor]
RATE = 16_000
CLEAR = "1688-142285-0009"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
WHISPER_SEED = 2


def test_pocketsphinx_hears_a_clear_sentence_partly_right(speech: Speech) -> None:
    (text,) = build_recogniser("pocketsphinx").transcribe([speech(CLEAR)], RATE)
    assert score_text("Why, it might have been in the workhouse.", text).words.rate <= 0.4


def test_pocketsphinx_hears_the_same_in_any_order_and_in_any_process(speech: Speech) -> None:
    wavs = [speech(id_) for id_ in ("2414-128291-0009", "3005-163389-0004", "3331-159605-0004", "2414-128291-0003")]
    recogniser = build_recogniser("pocketsphinx")
    texts = recogniser.transcribe(wavs, RATE)
    assert recogniser.transcribe(wavs[::-1], RATE) == texts[::-1]
    assert build_recogniser("pocketsphinx", jobs=2).transcribe(wavs, RATE) == texts


def test_where_nothing_can_be_heard_there_is_no_text(speech: Speech) -> None:
    wav = speech("3005-163389-0007")
    silent = [torch.zeros(RATE), wav[:0], wav[:100], torch.full((RATE,), math.nan)]
    texts = build_recogniser("pocketsphinx").transcribe([*silent, wav], RATE)
    assert texts[:4] == [""] * 4
    assert texts[4]


def test_loud_and_clipped_audio_does_not_wrap_around(speech: Speech) -> None:
    recogniser = build_recogniser("pocketsphinx")
    loud = speech(CLEAR) * 4
    assert recogniser.transcribe([loud], RATE) == recogniser.transcribe([loud.clamp(-1, 1)], RATE)


def test_a_wrong_choice_is_explained() -> None:
    with pytest.raises(UserError, match="unknown recogniser 'whisper'; known recognisers: pocketsphinx, fast"):
        build_recogniser("whisper")
    with pytest.raises(UserError, match="leave out --recogniser-model x"):
        build_recogniser("pocketsphinx", "x")
    assert "whisper-large-v3" in recogniser_names()


def test_weights_of_faster_whisper_are_asked_for_by_name(tmp_path: Path) -> None:
    for model in (str(tmp_path), "no-such-size"):
        with pytest.raises(UserError, match=f"'faster-whisper' cannot be loaded from '{model}'") as caught:
            build_recogniser("faster-whisper", model)
        assert "--recogniser-model DIR" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif("FASTER_WHISPER" not in os.environ, reason="FASTER_WHISPER names no folder of weights")
def test_faster_whisper_hears_what_is_said(speech: Speech) -> None:
    recogniser = build_recogniser("faster-whisper", os.environ["FASTER_WHISPER"])
    text, silence = recogniser.transcribe([speech(CLEAR), torch.zeros(RATE)], RATE)
    assert score_text("Why, it might have been in the workhouse.", text).words.rate == 0
    assert silence == ""


@pytest.mark.parametrize("name", ["hubert", "whisper-tiny"])
def test_missing_weights_are_explained(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"recogniser '{name}' cannot be loaded from '{tmp_path}'") as caught:
        build_recogniser(name, str(tmp_path))
    assert "hf download OWNER/NAME --local-dir DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hubert_is_decoded_greedily(tmp_path: Path, speech: Speech) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]
    (tmp_path / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    features = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    transformers.Wav2Vec2Processor(features, tokenizer).save_pretrained(tmp_path)
    config = transformers.HubertConfig(
        vocab_size=len(symbols),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(20, 16),
        feat_extract_norm="layer",
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    model = transformers.HubertForCTC(config).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    model.save_pretrained(tmp_path)

    wavs = [speech("3005-163389-0007"), speech("3331-159605-0004")]
    expected = []
    for wav in wavs:
        normalised = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
        with torch.inference_mode():
            path = model(normalised[None]).logits[0].argmax(dim=-1).unique_consecutive()
        letters = "".join(symbols[i] for i in path.tolist() if symbols[i] != "<pad>")
        expected.append(letters.replace("|", " ").strip())
    assert len(set(expected)) == 2, "the test would not see mixed-up recordings"
    for batch in (1, 2):  # of recordings of different lengths
        heard = build_recogniser("hubert", str(tmp_path), batch=batch).transcribe(wavs, RATE)
        assert [text.split() for text in heard] == [text.split() for text in expected]


def test_whisper_is_decoded_greedily(tmp_path: Path, speech: Speech) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(WHISPER_SEED)
    make_tiny_whisper(tmp_path)
    wavs = [speech("3005-163389-0007"), speech("3331-159605-0004")]
    extract = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
    expected = []
    for wav in wavs:
        features = extract(wav.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
        tokens = torch.tensor([[model.config.decoder_start_token_id]])
        with torch.inference_mode():
            for _ in range(model.generation_config.max_length):
                logits = model(features, decoder_input_ids=tokens).logits[:, -1]
                tokens = torch.cat([tokens, logits.argmax(dim=-1, keepdim=True)], dim=1)
        expected.append("".join(ALPHABET[i] for i in tokens[0, 1:].tolist() if i < len(ALPHABET)))
    assert len(set(expected)) == 2, "the test would not see mixed-up recordings"
    for batch in (1, 2):
        assert build_recogniser("whisper-tiny", str(tmp_path), batch=batch).transcribe(wavs, RATE) == expected


def make_tiny_whisper(folder: Path) -> None:
    """A random Whisper with the alphabet as vocabulary, saved with its processor."""
    import transformers

    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    vocabulary = {symbol: i for i, symbol in enumerate([*ALPHABET, *special])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    features = transformers.WhisperFeatureExtractor(feature_size=8)
    transformers.WhisperProcessor(features, tokenizer).save_pretrained(folder)
    config = transformers.WhisperConfig(
        vocab_size=len(vocabulary),
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=16,
        bos_token_id=vocabulary["<|startoftranscript|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
        decoder_start_token_id=vocabulary["<|startoftranscript|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config.max_length = 8
    model.save_pretrained(folder)
