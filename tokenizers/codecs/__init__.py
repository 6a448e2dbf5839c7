"""Neural speech codecs behind one interface."""

from valle.tokenizers.codecs.base import CodecSpec, DecodeStream, SpeechCodec, SpeechCodes
from valle.tokenizers.codecs.registry import build_codec, codec_names, load_codec, save_codec

__all__ = [
    "CodecSpec",
    "DecodeStream",
    "SpeechCodec",
    "SpeechCodes",
    "build_codec",
    "codec_names",
    "load_codec",
    "save_codec",
]
