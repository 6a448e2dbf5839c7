"""EnCodec: the same codes and waveforms as two other implementations, from random weights in the released format."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from valle.common.errors import UserError
from valle.tokenizers.codecs import SpeechCodes, build_codec, encodec, load_codec, save_codec
from valle.tokenizers.codecs.encodec import QUANTIZERS, Encodec

pytestmark = [
    pytest.mark.skipif(find_spec("encodec") is None, reason="the package encodec is not installed"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def package_model() -> Any:
    """The model of the `encodec` package, with random weights whose codes vary."""
    build_codec("encodec")  # imports the package as our codec does
    from encodec.model import EncodecModel

    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    with torch.no_grad():
        latent = model.encoder(torch.randn(1, 1, 6400))[0]
    for i, layer in enumerate(model.quantizer.vq.layers):
        layer._codebook.embed.copy_(torch.randn(1024, 128) * latent.std(1) * 0.8**i + (latent.mean(1) if i == 0 else 0))
        layer._codebook.inited.fill_(1)
    return model


@pytest.fixture(scope="module")
def weights(package_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as it is released."""
    path = tmp_path_factory.mktemp("encodec") / "encodec_24khz.th"
    torch.save(package_model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def codec(weights: Path) -> Encodec:
    return Encodec.pretrained(6.0, weights)


@pytest.mark.parametrize(("bandwidth", "n_q"), [(1.5, 2), (6, 8), (24, 32)])
def test_codes_and_waveform_are_those_of_the_package(
    bandwidth: float, n_q: int, package_model: Any, weights: Path
) -> None:
    codec = Encodec.pretrained(bandwidth, weights)
    assert codec.spec.n_q == n_q and codec.spec.frame_rate == 75
    wav = torch.randn(1, 1, 20 * 320)
    package_model.set_target_bandwidth(bandwidth)
    with torch.no_grad():
        ((expected, scale),) = package_model.encode(wav)
        expected_wav = package_model.decode([(expected, scale)])
    codes = codec.encode(wav)
    assert torch.equal(codes.codes, expected) and len(expected.unique()) > 20
    torch.testing.assert_close(codec.decode(codes), expected_wav, atol=1e-5, rtol=1e-4)


def test_codes_are_those_of_transformers(package_model: Any, codec: Encodec) -> None:
    transformers = pytest.importorskip("transformers")
    other = transformers.EncodecModel(transformers.EncodecConfig()).eval()
    names = {}
    for name in package_model.state_dict():
        theirs = re.sub(r"(en|de)coder\.model\.", r"\1coder.layers.", name)
        theirs = theirs.replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.")
        theirs = theirs.replace(".weight_g", ".parametrizations.weight.original0")
        theirs = theirs.replace(".weight_v", ".parametrizations.weight.original1")
        names[name] = theirs.replace("quantizer.vq.layers", "quantizer.layers").replace("._codebook.", ".codebook.")
    other.load_state_dict({names[name]: tensor for name, tensor in package_model.state_dict().items()})
    wav = torch.randn(1, 1, 20 * 320)
    with torch.no_grad():
        expected = other.encode(wav, bandwidth=6.0).audio_codes
        expected_wav = other.decode(expected, [None]).audio_values
    codes = codec.encode(wav)
    assert torch.equal(codes.codes, expected[0])
    torch.testing.assert_close(codec.decode(codes), expected_wav, atol=1e-5, rtol=1e-4)


def test_a_padded_batch_equals_one_by_one(codec: Encodec) -> None:
    lengths = [5000, 700, 321, 1]
    alone = [torch.randn(1, 1, n) for n in lengths]
    batch = torch.randn(4, 1, 5400)
    for i, wav in enumerate(alone):
        batch[i, :, : lengths[i]] = wav
    together = codec.encode(batch, torch.tensor(lengths))
    assert together.lengths.tolist() == [16, 3, 2, 1]
    together.codes[1, :, 3:] = 5  # what stands beyond the length is not heard
    decoded = codec.decode(together)
    for i, wav in enumerate(alone):
        single = codec.encode(wav)
        assert torch.equal(together[i].codes, single.codes)
        expected = codec.decode(single)
        assert expected.shape == (1, 1, int(single.lengths[0]) * 320)
        torch.testing.assert_close(decoded[i : i + 1, :, : expected.shape[-1]], expected, atol=1e-5, rtol=1e-4)
        assert not decoded[i, :, expected.shape[-1] :].any()


def test_codes_of_a_lower_bandwidth_decode(codec: Encodec, weights: Path) -> None:
    codes = codec.encode(torch.randn(1, 1, 3200))
    low = Encodec.pretrained(1.5, weights)
    first = SpeechCodes(codes.codes[:, :2], codes.lengths)
    assert torch.equal(low.encode(torch.zeros(1, 1, 0)).codes, torch.zeros(1, 2, 0, dtype=torch.long))
    torch.testing.assert_close(codec.decode(first), low.decode(first))


def test_save_and_load_give_the_same_codes(codec: Encodec, tmp_path: Path) -> None:
    codec.half().float()  # what is stored
    save_codec(codec, tmp_path)
    again = load_codec(tmp_path)
    wav = torch.randn(1, 1, 3200)
    assert again.spec == codec.spec and again.spec.name == "encodec"
    assert torch.equal(again.encode(wav).codes, codec.encode(wav).codes)


def test_bandwidths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match="one of 1.5, 3.0, 6.0, 12.0, 24.0 kbit/s: not 5"):
        build_codec("encodec", {"bandwidth": 5})
    assert list(QUANTIZERS.values()) == [2, 4, 8, 16, 32]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.th"
    with pytest.raises(UserError, match=r"other.th do not exist; their file is https://.*24khz"):
        Encodec.pretrained(weights=path)
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"other.th cannot be read"):
        Encodec.pretrained(weights=path)
    torch.save({"model": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"other.th is not EnCodec for 24 kHz: it lacks decoder.model"):
        Encodec.pretrained(weights=path)


def test_offline_the_message_says_where_to_put_the_file(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodec, "WEIGHTS_URL", "http://127.0.0.1:9/encodec-d7cc33bc.th")  # where nothing listens
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints" / "encodec-d7cc33bc.th"
    with pytest.raises(UserError, match=f"cannot be downloaded .*or put it at {place}"):
        Encodec.pretrained()
    place.write_bytes(weights.read_bytes())
    assert Encodec.pretrained(1.5).spec.n_q == 2


def test_the_stand_in_for_torchaudio_does_not_stay() -> None:
    """A module without contents under that name would break others, such as transformers, that look for it."""
    code = (
        "import sys; from valle.tokenizers.codecs import build_codec; build_codec('encodec');"
        "print('encodec' in sys.modules, 'torchaudio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"] and done.stderr == ""
