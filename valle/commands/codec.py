"""`valle codec`: speech to codes and back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from valle.outputs import AUDIO_SUFFIXES, check_writable
from valle.tokenizers.errors import UserError

if TYPE_CHECKING:
    from valle.tokenizers.codecs.base import SpeechCodes

_EPILOG = """examples:
  valle codec reconstruct in.wav out.wav --n-q 2
  valle codec encode in.wav in.codes
  valle codec decode in.codes out.wav"""
_VERBS = {
    "encode": ("audio to a code file", "AUDIO", "CODES"),
    "decode": ("a code file to audio", "CODES", "AUDIO"),
    "reconstruct": ("audio to codes and back: hear what the codec does", "AUDIO", "AUDIO"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (summary, source, target) in _VERBS.items():
        one = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=_EPILOG)
        one.add_argument("source", metavar="IN", help=f"{source.lower()} file to read")
        one.add_argument("target", metavar="OUT", help=f"{target.lower()} file to write")
        one.add_argument("--n-q", type=int, metavar="N", help="use the first N quantizers (default: all)")
        one.add_argument("--model", metavar="M", help="codec folder, model folder or Hub id (default: embedded model)")
        one.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Encode, decode or both."""
    check_writable(args.target, () if args.verb == "encode" else AUDIO_SUFFIXES)

    import torch

    from valle.code_file import CodeFile
    from valle.device import find_device
    from valle.hub import find_model
    from valle.tokenizers.audio import load_audio, save_audio
    from valle.tokenizers.codecs.registry import load_codec

    folder = find_model(args.model)
    device = find_device(args.device)
    codec = load_codec(folder, device)
    codec_hash = codec.fingerprint
    n_q = codec.spec.n_q if args.n_q is None else args.n_q
    if not 1 <= n_q <= codec.spec.n_q:
        raise UserError(f"--n-q must be 1 to {codec.spec.n_q} for codec '{codec.spec.name}', got {n_q}")
    with torch.inference_mode():
        if args.verb == "decode":
            stored = CodeFile.load(args.source)
            if stored.spec != codec.spec or stored.codec_hash != codec_hash:
                raise UserError(f"{args.source} was made by another codec than that of {folder}; name its --model")
        else:
            wav = load_audio(args.source, codec.spec.sample_rate)
            codes = _first(codec.encode(wav[None, None].to(device)), n_q)
            stored = CodeFile(codec.spec, codec_hash, codes, wav.shape[0])
        if args.verb == "encode":
            stored.save(args.target)
        else:
            decoded = codec.decode(_first(stored.codes, n_q).to(device))
            save_audio(args.target, decoded[0, 0, : stored.samples], codec.spec.sample_rate)
    seconds = stored.samples / codec.spec.sample_rate
    print(f"{args.target}: {seconds:.1f} s, {min(n_q, stored.codes.codes.shape[1])} quantizers")
    return 0


def _first(codes: SpeechCodes, n_q: int) -> SpeechCodes:
    from valle.tokenizers.codecs.base import SpeechCodes

    return SpeechCodes(codes.codes[:, :n_q], codes.lengths, codes.time_invariant)
