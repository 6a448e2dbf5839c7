"""From written text to token ids."""

from valle.tokenizers.text.bpe_tokenizer import BPETokenizer
from valle.tokenizers.text.normalise import normalise
from valle.tokenizers.text.phoneme_tokenizer import PhonemeTokenizer
from valle.tokenizers.text.phonemes import phonemize, resolve_language, supported_languages
from valle.tokenizers.text.registry import read_text_tokenizer, text_tokenizer_from_dict
from valle.tokenizers.text.sentences import split_sentences
from valle.tokenizers.text.tokenizer import NothingToSayError, TextTokenizer

__all__ = [
    "BPETokenizer",
    "NothingToSayError",
    "PhonemeTokenizer",
    "TextTokenizer",
    "normalise",
    "phonemize",
    "read_text_tokenizer",
    "resolve_language",
    "split_sentences",
    "supported_languages",
    "text_tokenizer_from_dict",
]
