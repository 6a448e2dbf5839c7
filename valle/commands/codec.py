"""`valle codec`: speech to codes and back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from valle.common.errors import UserError
from valle.common.files import check_writable

if TYPE_CHECKING:
    pass

_EPILOG = """examples:
  valle codec reconstruct in.wav out.wav --n-q 2
  valle codec encode in.wav in.codes
  valle codec decode in.codes out.wav
  valle codec calibrate out/corpus/cuts.jsonl.gz out/calibrated --model out/codec"""
_CALIBRATE = """What cannot be told from few codes is decoded as a mean, and so decoded speech is too even. This
measures by how much, for each number of quantizers, and writes the codec with what makes up for it. Its codes stay
the same."""
_CALIBRATE_SECONDS = 6
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
    summary = "measure by how much decoded speech is too even, so that decoding makes up for it"
    one = verbs.add_parser("calibrate", help=summary, description=_CALIBRATE, epilog=_EPILOG)
    one.add_argument("cuts", metavar="CUTS", help="recordings to measure on: a cut manifest made by 'valle prepare'")
    one.add_argument("target", metavar="OUT", help="folder for the calibrated codec")
    one.add_argument("--model", required=True, metavar="M", help="codec folder, model folder or Hub id")
    one.add_argument("--utterances", type=int, default=100, metavar="N", help="how many of them (default: 100)")


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    if args.verb == "calibrate":
        return _calibrate(args)
    from valle.common.audio import AUDIO_SUFFIXES

    check_writable(args.target, () if args.verb == "encode" else AUDIO_SUFFIXES)

    import torch

    from valle.common.audio import load_audio, save_audio
    from valle.common.device import find_device
    from valle.common.hub import find_model
    from valle.tokenizers.codecs.code_file import CodeFile
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
            codes = codec.encode(wav[None, None].to(device)).first(n_q)
            stored = CodeFile(codec.spec, codec_hash, codes, wav.shape[0])
        if args.verb == "encode":
            stored.save(args.target)
        else:
            decoded = codec.decode(stored.codes.first(n_q).to(device))
            save_audio(args.target, decoded[0, 0, : stored.samples], codec.spec.sample_rate)
    seconds = stored.samples / codec.spec.sample_rate
    print(f"{args.target}: {seconds:.1f} s, {min(n_q, stored.codes.codes.shape[1])} quantizers")
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    import json

    from valle.common.files import check_folder
    from valle.common.hub import find_model
    from valle.data.cuts import cut_audio, load_cuts
    from valle.tokenizers.codecs.autoencoder import AutoencoderCodec
    from valle.tokenizers.codecs.contrast import calibrate
    from valle.tokenizers.codecs.registry import load_codec, save_codec

    if args.utterances < 1:
        raise UserError(f"--utterances must be at least 1, got {args.utterances}")
    check_folder(args.target)
    codec = load_codec(args.model)
    if not isinstance(codec, AutoencoderCodec):
        raise UserError(f"codec '{codec.spec.name}' cannot be calibrated")
    cuts = list(load_cuts(args.cuts))
    step = max(1, len(cuts) // args.utterances)
    seconds = _CALIBRATE_SECONDS * codec.spec.sample_rate
    chosen = cuts[::step][: args.utterances]
    factors = calibrate(codec, [cut_audio(cut, codec.spec.sample_rate)[:seconds] for cut in chosen])
    provenance = json.loads((find_model(args.model) / "config.json").read_text(encoding="utf-8")).get("provenance")
    save_codec(codec, args.target, provenance)
    listed = ", ".join(f"{factor:.3f}" for factor in factors)
    print(f"{args.target}: spread by {listed} with 1 to {codec.spec.n_q} quantizers")
    return 0
