"""A saved model is the model; what does not fit together is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import valle
from valle.cli import main
from valle.common.errors import UserError
from valle.common.hub import EMBEDDED
from valle.lm import ARModel, FlowConfig, FlowModel, save_lm
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle, read_config
from valle.synthesis.utterance import make_request
from valle.tokenizers.codecs import load_codec

Make = Callable[..., Any]
PROMPT = Path(valle.__file__).parent / "assets" / "eval" / "1688-142285-0002.opus"


def test_loading_gives_what_was_saved(bundle: Bundle, model: Path) -> None:
    loaded = Bundle.load(model)
    pairs = ((loaded.codec, bundle.codec), (loaded.ar, bundle.ar), (loaded.refiner, bundle.refiner))
    for new, old in pairs:
        assert new is not None
        assert old is not None
        assert not new.training
        state = new.state_dict()
        assert state.keys() == old.state_dict().keys()
        for name, tensor in old.state_dict().items():
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor)
    assert loaded.to_dict() == bundle.to_dict()
    assert loaded.provenance == bundle.provenance
    assert loaded.text.encode("Hello, world.") == bundle.text.encode("Hello, world.")


def test_saving_again_gives_the_same(model: Path, tmp_path: Path) -> None:
    """Above all the same bytes of the codec, whose hash says which tokens it made."""
    Bundle.load(model).save(tmp_path)
    for name in ("codec.safetensors", "config.json", "README.md"):
        assert (tmp_path / name).read_bytes() == (model / name).read_bytes()


def test_a_model_speaks_the_languages_of_its_training(bundle: Bundle, tmp_path: Path) -> None:
    replace(bundle, languages=["en-us", "zh"]).save(tmp_path)
    cloner, voice = VoiceCloner.from_pretrained(tmp_path), VoiceCloner(bundle).make_voice(PROMPT)
    for known in ("en-us", "en-gb", "EN", "cmn", "zh"):
        cloner.bundle.check_language(known)
    for say in (
        lambda: cloner.clone("Ja.", voice, language="de"),
        lambda: next(cloner.stream("Ja.", voice, language="de")),
        lambda: cloner.make_voice(PROMPT, "Ja.", "de"),
    ):
        with pytest.raises(UserError, match="does not speak 'de': it was trained on en-us, zh"):
            say()
    assert VoiceCloner.from_pretrained(tmp_path, any_language=True).clone("Ja.", voice, language="de").seconds > 0

    config = json.loads((tmp_path / "config.json").read_text())
    del config["model"]["languages"]  # as an earlier version wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    Bundle.load(tmp_path).check_language("de")


def test_the_embedded_model_speaks_english() -> None:
    assert read_config(EMBEDDED)["model"]["languages"] == ["en-us"]


def test_a_model_folder_is_a_codec_folder(bundle: Bundle, model: Path) -> None:
    assert load_codec(model).spec == bundle.codec.spec


def test_one_quantizer_needs_no_nar(make_bundle: Make, tmp_path: Path) -> None:
    make_bundle(codec={"n_q": 1}).save(tmp_path)
    assert not (tmp_path / "nar.safetensors").exists()
    assert Bundle.load(tmp_path).refiner is None


@pytest.mark.parametrize("aligned", [False, True])
def test_a_flow_takes_the_place_of_the_nar(bundle: Bundle, tmp_path: Path, recordings: Path, aligned: bool) -> None:
    torch.manual_seed(0)
    flow = FlowModel(FlowConfig.from_dict(bundle.ar.config.to_dict() | {"aligned": aligned})).eval()
    flow.start_from_codec(bundle.codec)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # as it comes, a flow goes nowhere
    Bundle(bundle.codec, bundle.text, bundle.ar, flow, sampling=bundle.sampling).save(tmp_path)
    assert (tmp_path / "flow.safetensors").exists() and not (tmp_path / "nar.safetensors").exists()
    cloner = VoiceCloner.from_pretrained(tmp_path, device="cpu")
    assert isinstance(cloner.bundle.refiner, FlowModel)
    prompt = min(recordings.glob("*.opus"))
    speech = cloner.clone("Hello there.", prompt)
    assert speech.codes.shape[0] == bundle.codec.spec.n_q
    assert torch.equal(cloner.clone("Hello there.", prompt).codes, speech.codes)
    voice = cloner.make_voice(prompt)
    request = make_request(torch.tensor([4, 5]), voice, bundle.text, seed=0, piece=0, candidate=0)
    assert request.voice_codes is not None and torch.equal(request.voice_codes, voice.codes[:, :250])


def test_a_folder_says_which_ends_its_model_knows(bundle: Bundle, tmp_path: Path) -> None:
    replace(bundle, ends="!.").save(tmp_path)
    assert Bundle.load(tmp_path).ends == "!."
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["model"]["ends"]  # as earlier versions wrote it
    path.write_text(json.dumps(config))
    assert Bundle.load(tmp_path).ends == ".?"


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({"n_q": 4}, "ar does not fit codec 'spectral': ar was made for 2 quantizers, the codec has 4"),
        ({"codebook_size": 8}, "ar was made for 16 codes per codebook, the codec has 8"),
        ({"time_invariant_groups": 4}, "ar was made for 2 time-invariant codes, the codec has 4"),
        ({"time_invariant_size": 4}, "ar was made for 8 codes per time-invariant codebook, the codec has 4"),
    ],
)
def test_another_codec_is_refused(bundle: Bundle, make_codec: Make, codec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Bundle(make_codec(**codec), bundle.text, bundle.ar, bundle.refiner)


def test_parts_that_are_missing_or_contradict_are_refused(bundle: Bundle, make_bundle: Make) -> None:
    with pytest.raises(UserError, match="made for 50 symbols"):
        make_bundle(text_vocab_size=50)
    plain = make_bundle(aligned=False)
    with pytest.raises(UserError, match="nar needs durations"):
        Bundle(bundle.codec, bundle.text, plain.ar, bundle.refiner)


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["model"] |= changes
        path.write_text(json.dumps(config))

    return change


def deepen_ar(folder: Path) -> None:
    save_lm(ARModel(replace(Bundle.load(folder).ar.config, layers=2)), folder, "ar")


def lose_a_weight(folder: Path) -> None:
    path = folder / "nar.safetensors"
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in list(file.keys())[1:]}
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{}"), "not that of a whole model"),
        (change_config(format_version=9), "format version 9"),
        (change_config(sampling={"heat": 1}), "does not describe a model"),
        (change_config(text_tokenizer={"kind": "runes"}), "runes"),
        (change_config(ends=".x"), r"model\.ends must be some of .* got '\.x'"),
        (change_config(ends=None), r"model\.ends must be some of"),
        (lambda f: (f / "ar.safetensors").unlink(), r"ar\.safetensors"),
        (lambda f: (f / "nar.safetensors").write_bytes(b"\x08" * 20), r"nar\.safetensors is damaged"),
        (lambda f: (f / "codec.safetensors").write_bytes(b"\x08" * 20), r"codec\.safetensors .* damaged"),
        (lose_a_weight, r"nar\.safetensors has other weights than this version's 'nar' models; use the valle that"),
        (deepen_ar, r"ar\.safetensors is not the model that config\.json describes"),
    ],
    ids=[
        "no config",
        "torn config",
        "codec only",
        "version",
        "sampling",
        "text",
        "ends",
        "no ends",
        "no ar",
        "nar",
        "codec",
        "other weights",
        "swapped",
    ],
)
def test_a_damaged_folder_is_refused(
    model: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    damage(folder)
    with pytest.raises(UserError, match=message):
        Bundle.load(folder)


def test_an_aligned_model_without_its_aligner_is_told_or_refused(
    make_bundle: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, codec in (("voice", {}), ("plain", {"time_invariant": False})):
        make_bundle(codec=codec).save(tmp_path / name)
    for name, code in (("voice", 0), ("plain", 2)):
        model = str(tmp_path / name)
        parts = ["export", "--codec", model, "--ar", model, "--nar", model, "--out", str(tmp_path / f"{name}-out")]
        assert main(parts) == code
        assert "without the --aligner" in (shown := capsys.readouterr().err) and shown.count("\n") == 1
    assert not (tmp_path / "plain-out").exists()
