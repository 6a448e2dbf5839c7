"""`valle bench serve`: a server under load."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from valle.common.errors import UserError

if TYPE_CHECKING:
    from valle.bench.serving import Target

_EPILOG = """examples:
  valle bench serve --clients 1 4 16 --seconds 300
  valle bench serve --url http://127.0.0.1:8000 --clients 40"""

_START_SECONDS = 300


def configure(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = kinds.add_parser(
        "serve",
        help="a server under load: first audio, throughput, mixed-up answers, memory",
        description="Clients that ask again and again, on loopback; starts a server of its own unless --url names one.",
        epilog=_EPILOG,
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="default: 1 4 16")
    parser.add_argument("--seconds", type=float, default=300.0, metavar="S", help="of each (default: 300)")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--key", help="its API key")
    parser.add_argument("--model", metavar="M", help="of a server of its own (default: the embedded model)")
    parser.add_argument("--threads", metavar="N", help="of a server of its own (default: what suits the model)")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from valle.bench.serving import run_load

    if min(args.clients) < 1 or args.seconds <= 0:
        raise UserError("--clients and --seconds must be above 0")
    for option in ("model", "threads"):
        if args.url and getattr(args, option):
            raise UserError(f"--{option} is of a server of its own; leave it out with --url")
    with _server(args) as target:
        results = [asdict(run_load(target, clients, args.seconds)) for clients in args.clients]
    if args.json:
        print(json.dumps(results, indent=2))
        return 0
    for result in results:
        print("  ".join(f"{name} {value}" for name, value in result.items()))
    return 0


@contextmanager
def _server(args: argparse.Namespace) -> Iterator[Target]:
    from valle.bench.serving import Target

    if args.url:
        yield Target(args.url, args.key)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as voices:
        command = [sys.executable, "-m", "valle", "serve", "--port", str(port), "--voices", voices]
        for option in ("model", "threads"):
            command += [f"--{option}", value] if (value := getattr(args, option)) else []
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            target = Target(f"http://127.0.0.1:{port}")
            _wait(server, target)
            yield target
        finally:
            server.terminate()
            server.wait()


def _wait(server: subprocess.Popen[bytes], target: Target) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            target.voices()
            return
        except UserError:
            time.sleep(0.5)
    raise UserError("the server did not start; try 'valle serve'")
