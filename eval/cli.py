"""The subcommands of `valle eval`, each group in a module of its own."""

from __future__ import annotations

from typing import Any

from valle.eval.cli_ceilings import add_ceilings_command
from valle.eval.cli_codec import add_codec_command
from valle.eval.cli_decoding import add_decoding_command
from valle.eval.cli_listening import add_listening_command
from valle.eval.cli_paper import add_paper_commands
from valle.eval.cli_report import add_report_commands
from valle.eval.cli_tts import add_tts_commands
from valle.eval.cli_variants import add_variants_command


def add_eval_commands(subparsers: Any) -> None:
    """Add all to what `add_subparsers` gave for `valle eval`; each sets `run(args) -> exit code`."""
    add_tts_commands(subparsers)
    add_variants_command(subparsers)
    add_ceilings_command(subparsers)
    add_report_commands(subparsers)
    add_listening_command(subparsers)
    add_paper_commands(subparsers)
    add_codec_command(subparsers)
    add_decoding_command(subparsers)
