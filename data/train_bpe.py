"""A corpus' texts -> a text tokenizer of word pieces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from valle.common.errors import UserError
from valle.common.files import whole
from valle.data.cuts import cut_language, cut_text, load_cuts
from valle.tokenizers.text import BPETokenizer


def train_bpe(manifests: Sequence[str | Path], out: str | Path, vocab_size: int) -> BPETokenizer:
    """Train on the texts of cut manifests and write the tokenizer as JSON to `out`.

    Numbers and abbreviations are spelled out in the language that most texts are in.
    """
    cuts = [cut for manifest in manifests for cut in load_cuts(manifest)]
    texts = [text for cut in cuts if (text := cut_text(cut))]
    if not texts:
        raise UserError(f"{', '.join(map(str, manifests))}: no cut has a text")
    language = Counter(map(cut_language, cuts)).most_common(1)[0][0]
    tokenizer = BPETokenizer.train(texts, language, vocab_size)
    with whole(out) as part:
        part.write_text(json.dumps(tokenizer.to_dict()), encoding="utf-8")
    return tokenizer
