"""`valle serve`: HTTP, WebSocket and a page over one model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from valle.serve.service import Checker

_EPILOG = """examples:
  valle serve                                   # then open http://127.0.0.1:8000/
  valle serve --host 0.0.0.0 --allow-host tts.example.org --api-key-file keys.txt"""

_STOP_SECONDS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.set_defaults(run=run)
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("--model", metavar="M", help="model folder or Hugging Face Hub id (default: the embedded model)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps (default: auto)")
    add("--threads", type=_number(1, 1024), metavar="N", help="of the CPU that speak (default: what suits the model)")
    add("--any-language", action="store_true", help="let the model try what it was not trained to speak")
    add("--host", default="127.0.0.1", metavar="IP", help="where to listen (default: 127.0.0.1, this machine only)")
    add("--port", type=_number(0, 65535), default=8000, metavar="N", help="default: 8000")
    add("--allow-host", action="append", default=[], metavar="NAME", help="a name of this server in URLs; '*': any")
    add("--allow-origin", action="append", default=[], metavar="URL", help="a site whose pages may use it; '*': any")
    add("--voices", metavar="DIR", help="where voices are stored (default: ~/.local/share/valle/voices)")
    add("--api-key-file", metavar="FILE", help="lines 'name:key'; without it, whoever can connect may ask")
    add("--watermark", nargs="?", const="valle", metavar="KEY", help="mark all speech, see 'valle watermark'")
    add("--check", action="store_true", help="offer checks of likeness and words on the page; needs the extra 'eval'")
    for name, default, meaning in (
        ("concurrent", 8, "requests spoken at once"),
        ("waiting", 32, "requests that may wait; one more gets 429"),
        ("max-characters", 4096, "of one text"),
        ("max-seconds", 300, "until a request is given up"),
    ):
        add(f"--{name}", type=_number(1, 10**6), default=default, metavar="N", help=f"{meaning} (default: {default})")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    import uvicorn

    from valle.common.files import check_folder
    from valle.serve.app import LOCAL_HOSTS, create_app
    from valle.serve.auth import ApiKeys, check_origin
    from valle.serve.limits import Limits
    from valle.serve.listener import check_free, listener
    from valle.serve.service import Service
    from valle.synthesis.cloner import VoiceCloner
    from valle.synthesis.voice_store import VoiceStore

    limits = Limits(
        text_characters=args.max_characters,
        request_seconds=args.max_seconds,
        waiting=args.waiting,
        concurrent=args.concurrent,
    )
    keys = ApiKeys.read(args.api_key_file) if args.api_key_file else ApiKeys({})
    if not args.api_key_file and args.host not in LOCAL_HOSTS:
        print(f"note: whoever reaches {args.host} may use this server; --api-key-file changes that", file=sys.stderr)
    origins = [check_origin(origin) for origin in args.allow_origin]
    voices = VoiceStore(args.voices, limits.voices)
    check_folder(voices.folder)
    check_free(args.host, args.port)
    checker = build_checker() if args.check else None
    cloner = VoiceCloner.from_pretrained(args.model, args.device, threads=args.threads, any_language=args.any_language)
    service = Service.build(cloner, voices, limits, keys, args.watermark, checker)
    app = create_app(service, [*LOCAL_HOSTS, args.host, *args.allow_host], origins)
    config = listener(app, host=args.host, port=args.port, log_level="info", timeout_graceful_shutdown=_STOP_SECONDS)
    uvicorn.Server(config).run()
    return 0


def build_checker() -> Checker:
    """Likeness by Resemblyzer, words by pocketsphinx: both come with their models."""
    from valle.eval.judges.recognisers import build_recogniser
    from valle.eval.judges.similarity import build_speaker_model, embed_all, likeness
    from valle.eval.judges.text import normalise_for_scoring, score_text

    speakers, recogniser = build_speaker_model(), build_recogniser("pocketsphinx")

    def check(speech: Tensor, prompt: Tensor, sample_rate: int, text: str) -> dict[str, Any]:
        similarity = likeness(*embed_all(speakers, [speech, prompt], sample_rate)).value
        heard = recogniser.transcribe([speech], sample_rate)[0]
        errors = score_text(text, heard).characters
        return {
            "similarity": similarity,
            "heard": heard,
            "expected": normalise_for_scoring(text),
            "character_error_rate": errors.rate if errors.length else None,
        }

    return check


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isdecimal() or not least <= int(value) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {value}")
        return int(value)

    return parse
