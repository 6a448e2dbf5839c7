"""`valle prepare`: recordings with texts to a checked corpus, and a text tokenizer from its texts."""

from __future__ import annotations

import argparse

from valle.common.files import check_folder, check_writable

_SUMMARIES = {
    "folder": "your own: a folder of audio with .txt files beside it, or a TSV table",
    "libritts": "LibriTTS, LibriTTS-R: many readers, English",
    "librispeech": "LibriSpeech: many readers, English",
    "vctk": "VCTK 0.80, 0.92: about 110 speakers, English",
    "aishell3": "AISHELL-3: 218 speakers, Mandarin",
    "ljspeech": "LJSpeech: one reader, English",
    "baker": "BakerZH (CSMSC): one reader, Mandarin",
    "esd": "Emotional Speech Dataset: 20 speakers, Mandarin and English",
}
_EPILOG = """Writes cuts.jsonl.gz, split into train, dev and test, a list of what was left out and why, and a picture.

examples:
  valle prepare libritts /data/LibriTTS --out corpus --where split=train-clean-100,train-clean-360,dev-clean
  valle prepare folder recordings/ --out corpus       # a.wav with a.txt beside it; speaker = folder name
  valle prepare folder list.tsv --out corpus          # columns: id path speaker text
  valle prepare synthetic sentences.txt --out corpus --utterances 5000
  valle prepare bpe corpus/train.jsonl.gz --out bpe.json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = _EPILOG
    kinds = parser.add_subparsers(dest="kind", metavar="CORPUS", required=True)
    for name, summary in _SUMMARIES.items():
        corpus = kinds.add_parser(name, help=summary, description=f"Prepare {summary}.", epilog=_EPILOG)
        corpus.set_defaults(run=_prepare)
        add = corpus.add_argument
        add("root", metavar="ROOT", help="folder with the corpus" + (", or TSV table" if name == "folder" else ""))
        add("--out", required=True, metavar="DIR", help="folder to write to")
        add("--where", action="append", default=[], metavar="COL=VAL", help="keep only these (a,b: one of them)")
        if name == "folder":
            add("--language", default="en-us", metavar="CODE", help="of rows that do not say theirs (default: en-us)")
        add("--min-seconds", type=float, default=0.5, metavar="S", help="drop what is shorter (default: 0.5)")
        add("--max-seconds", type=float, default=30.0, metavar="S", help="drop what is longer (default: 30)")
        add("--dev", type=float, default=0.02, metavar="SHARE", help="of speech held out, by speaker (default: 0.02)")
        add("--test", type=float, default=0.02, metavar="SHARE", help="the same for tests (default: 0.02)")
        add("--allow-no-text", action="store_true", help="keep recordings without text (enough to train a codec)")
        add("--jobs", type=int, metavar="N", help="threads that check audio (default: one for each core)")
    synthetic = kinds.add_parser(
        "synthetic",
        help="speech with exact texts from espeak-ng (and flite, festival if installed): needs no recordings",
        description="Have sentences read by synthetic voices, each made into many speakers, and prepare that corpus.",
        epilog=_EPILOG,
    )
    synthetic.set_defaults(run=_synthesize)
    add = synthetic.add_argument
    add("sentences", metavar="TXT", help="text file, one sentence on each line")
    add("--out", required=True, metavar="DIR", help="folder to write to: the audio and the corpus")
    add("--utterances", type=int, default=1000, metavar="N", help="sentences that are read (default: 1000)")
    add("--speakers", type=int, default=200, metavar="N", help="voices and variants of them (default: 200)")
    add("--engines", nargs="+", metavar="E", help="of espeak flite festival kokoro=FOLDER (default: those installed)")
    add("--seed", type=int, default=0, metavar="N", help="who reads what (default: 0)")
    add("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    bpe = kinds.add_parser(
        "bpe",
        help="a text tokenizer of word pieces instead of phonemes",
        description="Train a SentencePiece tokenizer on a corpus' texts, for 'valle tokenize --text-tokenizer'.",
        epilog=_EPILOG,
    )
    bpe.set_defaults(run=_train_bpe)
    bpe.add_argument("cuts", nargs="+", metavar="CUTS", help="cut manifests made by 'valle prepare'")
    bpe.add_argument("--out", required=True, metavar="JSON", help="file to write")
    bpe.add_argument("--vocab-size", type=int, default=500, metavar="N", help="word pieces (default: 500)")


def _prepare(args: argparse.Namespace) -> int:
    check_folder(args.out)

    from pathlib import Path

    from valle.data.corpus import parse_where
    from valle.data.prepare import HeldOut, Limits, prepare_entries, prepare_folder
    from valle.data.recipes import read_corpus

    limits = Limits(args.min_seconds, args.max_seconds, allow_no_text=args.allow_no_text)
    held_out = HeldOut(args.dev, args.test)
    where = parse_where(args.where)
    if args.kind == "folder":
        report = prepare_folder(
            args.root,
            args.out,
            where=where,
            language=args.language,
            limits=limits,
            held_out=held_out,
            jobs=args.jobs,
        )
    else:
        entries = read_corpus(args.kind, Path(args.root))
        report = prepare_entries(entries, args.out, where=where, limits=limits, held_out=held_out, jobs=args.jobs)
    print(report.table())
    print(f"wrote {report.cuts}")
    return 0


def _synthesize(args: argparse.Namespace) -> int:
    check_folder(args.out)

    from valle.data.prepare import prepare_folder
    from valle.data.synthesize import synthesize

    table = synthesize(
        args.sentences,
        args.out,
        utterances=args.utterances,
        speakers=args.speakers,
        engines=args.engines,
        seed=args.seed,
        jobs=args.jobs,
    )
    report = prepare_folder(table, args.out, jobs=args.jobs)
    print(report.table())
    print(f"wrote {report.cuts}")
    return 0


def _train_bpe(args: argparse.Namespace) -> int:
    check_writable(args.out, (".json",))

    from valle.data.prepare import train_bpe

    tokenizer = train_bpe(args.cuts, args.out, args.vocab_size)
    print(f"wrote {args.out}: {len(tokenizer.vocab)} word pieces")
    return 0
