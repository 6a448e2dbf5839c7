"""`valle watermark`: put an inaudible mark into speech, or look for it."""

from __future__ import annotations

import argparse
import json

from valle.common.errors import UserError
from valle.common.files import check_writable

_RATE = 24_000
"""Hz: all that speech needs."""

_EPILOG = """examples:
  valle watermark detect speech.mp3             # exit code 0: marked, 1: not
  valle watermark embed speech.wav marked.wav"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary, run in (
        ("detect", "say whether a recording is marked", _detect),
        ("embed", "write a marked copy of a recording, at 24 kHz", _embed),
    ):
        verb = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        verb.set_defaults(run=run)
        verb.add_argument("audio", metavar="AUDIO", help="WAV, FLAC, OGG or MP3")
        if name == "embed":
            verb.add_argument("out", metavar="OUT", help="file to write")
        else:
            verb.add_argument("--json", action="store_true", help="print as JSON")
        verb.add_argument("--key", default="valle", help="the key of the mark (default: valle, the public one)")


def _detect(args: argparse.Namespace) -> int:
    from valle.common.audio import load_audio
    from valle.serve.watermark import MIN_SECONDS, THRESHOLD, detect

    samples = load_audio(args.audio, _RATE).numpy()
    if len(samples) < MIN_SECONDS * _RATE:
        raise UserError(f"{args.audio} is too short to look for a watermark; give {MIN_SECONDS:g} s or more")
    found = detect(samples, _RATE, args.key)
    if args.json:
        print(json.dumps({"marked": found.is_marked, "score": round(found.score, 2), "threshold": THRESHOLD}))
    else:
        verdict = "marked" if found.is_marked else "not marked"
        print(f"{args.audio}: {verdict} (score {found.score:.1f}; marked from {THRESHOLD:g} on)")
    return 0 if found.is_marked else 1


def _embed(args: argparse.Namespace) -> int:
    import torch

    from valle.common.audio import AUDIO_SUFFIXES, load_audio, save_audio
    from valle.serve.watermark import embed

    check_writable(args.out, AUDIO_SUFFIXES)
    marked = embed(load_audio(args.audio, _RATE).numpy(), _RATE, args.key)
    save_audio(args.out, torch.from_numpy(marked), _RATE)
    print(f"{args.out}: marked")
    return 0
