"""The command `valle eval decoding`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valle.common.errors import UserError

if TYPE_CHECKING:
    from valle.eval.decoding import Finding
    from valle.synthesis.cloner import VoiceCloner

CHECKS = {
    "long": "the voice of a long text's last minute against its first",
    "seams": "spectral flux where the chunks of a stream meet, and elsewhere",
    "leaks": "words of the prompt in front of the text; its first and last words",
    "memory": "what a process keeps of a thousand requests",
}
_EXAMPLE = """examples:
  valle eval decoding --out results/decoding      # all: an hour of speech, and 1,200 sentences
  valle eval decoding --checks seams leaks --sentences 20"""


def add_decoding_command(subparsers: Any) -> None:
    """Add it to the subcommands of `valle eval`."""
    decoding = subparsers.add_parser(
        "decoding",
        help="long texts, seams of streams, leaks of the prompt, memory over many requests",
        description="Let a model speak in the shipped voices and check:\n"
        + "\n".join(f"  {name:<8}{what}" for name, what in CHECKS.items()),
        epilog=_EXAMPLE,
    )
    add = decoding.add_argument
    add("--checks", nargs="+", default=list(CHECKS), metavar="C", help=f"of {' '.join(CHECKS)} (default: all)")
    add("--model", metavar="M", help="model folder or Hub id (default: the embedded model)")
    add("--minutes", type=int, default=10, metavar="N", help="of the long text (default: 10)")
    add("--voices", type=int, default=5, metavar="N", help="that say the long text (default: 5, all)")
    add("--sentences", type=int, default=100, metavar="N", help="said for seams and leaks (default: 100)")
    add("--requests", type=int, default=1000, metavar="N", help="of the check of memory (default: 1000)")
    add("--speaker-model", default="resemblyzer", metavar="S", help="resemblyzer (default) or wavlm")
    add("--seed", type=int, default=0, metavar="N", help="of speech and intervals (default: 0)")
    add("--device", default="auto", metavar="D", help="auto, cpu, cuda, ... (default: auto)")
    add("--out", type=Path, metavar="DIR", help="write decoding.json there")
    add("--json", action="store_true", help="print results as JSON")
    decoding.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from valle.common.files import check_folder
    from valle.eval.decoding import table
    from valle.eval.results import results_head, write_json
    from valle.synthesis.cloner import VoiceCloner

    if unknown := [name for name in args.checks if name not in CHECKS]:
        raise UserError(f"--checks: unknown check '{unknown[0]}'; known: {', '.join(CHECKS)}")
    if args.minutes < 2 or not 1 <= args.sentences <= 100 or args.requests < 1 or not 1 <= args.voices <= 5:
        raise UserError("--minutes must be 2 or more, --voices 1 to 5, --sentences 1 to 100, --requests at least 1")
    if args.out:
        check_folder(args.out)
    checks = _checks(args)
    cloner = VoiceCloner.from_pretrained(args.model, args.device)
    found = {name: checks[name](cloner) for name in CHECKS if name in args.checks}
    config = {
        name: getattr(args, name) for name in ("model", "minutes", "voices", "sentences", "requests", "speaker_model")
    }
    results = results_head("decoding", config, args.seed, args.sentences) | {
        "checks": {name: [finding.to_dict() for finding in findings] for name, findings in found.items()}
    }
    if args.out:
        write_json(args.out / "decoding.json", results)
    print(json.dumps(results, indent=2) if args.json else table(found))
    return 0


def _checks(args: argparse.Namespace) -> dict[str, Callable[[VoiceCloner], Sequence[Finding]]]:
    """What to do for each check; judges that cannot be had are told at once."""
    from valle.eval.decoding import check_leaks, check_long_text, check_memory, check_seams
    from valle.eval.judges.similarity import build_speaker_model
    from valle.eval.protocols import SENTENCES_100, choose_prompts, deal, read_list, read_sentences

    recordings = read_list()
    prompts, sentences = choose_prompts(recordings), read_sentences(SENTENCES_100)
    trials = deal(prompts, sentences[: args.sentences])
    speaker_model = build_speaker_model(args.speaker_model) if "long" in args.checks else None

    def long_text(cloner: VoiceCloner) -> Sequence[Finding]:
        assert speaker_model is not None
        return check_long_text(cloner, speaker_model, prompts[: args.voices], sentences, args.minutes, args.seed)

    return {
        "long": long_text,
        "seams": lambda cloner: check_seams(cloner, trials, args.seed),
        "leaks": lambda cloner: check_leaks(cloner, trials, recordings, args.seed),
        "memory": lambda cloner: check_memory(cloner, trials, args.requests, args.seed),
    }
