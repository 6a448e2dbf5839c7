"""A process that decodes one uploaded recording and can do little else; `valle.serve.uploads` runs it.

    python -I decode_worker.py SAMPLE_RATE MAX_SECONDS  < recording  > float32 samples, mono

Exit code 3: the recording is refused, with one line on standard error that says why.

A decoder is a large program that a stranger feeds. Here it has a few seconds of CPU time, a bounded memory, no file
that it could open, and only the formats in which people record voices. It imports nothing of valle, to start quickly.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import wave

import av
import numpy as np

CPU_SECONDS = 10
MEMORY_BYTES = 2 * 2**30
"""Of address space: libraries and their reservations count, too."""
FORMATS = "wav,w64,aiff,au,caf,flac,mp3,aac,ogg,matroska,webm,mov,mp4,m4a"
CODECS = {name for name in av.codecs_available if name.startswith("pcm_")} | {
    *("flac", "alac", "mp3", "mp3float", "aac", "opus", "libopus", "vorbis")
}
"""FFmpeg has hundreds more, for pictures, too, which it would try when it looks into a file."""
REFUSED = 3
_UNKNOWN = "the file is not a recording in a known format (WAV, FLAC, MP3, OGG, WebM, M4A)"


class RefusedError(Exception):
    """The message says what is wrong with the recording."""


def main() -> int:
    """Standard input to standard output."""
    sample_rate, max_seconds = int(sys.argv[1]), float(sys.argv[2])
    decode(a_little_silence(), sample_rate, max_seconds)  # PyAV imports some of itself only when it is used
    limit_this_process()
    try:
        samples = decode(sys.stdin.buffer.read(), sample_rate, max_seconds)
    except RefusedError as error:
        print(error, file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(samples.tobytes())
    return 0


def a_little_silence() -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(1600))
    return file.getvalue()


def limit_this_process() -> None:
    """From here on: no files, no new memory beyond the bound, no core dump, little time."""
    limits = {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        # The three standard streams are open already; playlists and references inside a file lead nowhere.
        resource.RLIMIT_NOFILE: 3,
    }
    for what, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS does not limit address space
            resource.setrlimit(what, (value, value))


def decode(data: bytes, sample_rate: int, max_seconds: float) -> np.ndarray:
    """float32 [S], mono, of the first audio stream. Raises `RefusedError`."""
    pieces, size = [np.zeros(0, np.float32)], 0
    options = {"format_whitelist": FORMATS, "codec_whitelist": ",".join(sorted(CODECS))}
    try:
        with av.open(io.BytesIO(data), "r", options=options) as container:
            if not container.streams.audio:
                raise RefusedError("the file has no sound track")
            stream = container.streams.audio[0]
            if stream.codec_context.name not in CODECS:
                raise RefusedError(_UNKNOWN)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
            for frame in container.decode(stream):
                for part in resampler.resample(frame):
                    pieces.append(part.to_ndarray()[0])
                    size += len(pieces[-1])
                if size > (max_seconds + 0.5) * sample_rate:
                    raise RefusedError(f"the recording is longer than {max_seconds:g} s")
            pieces += [part.to_ndarray()[0] for part in resampler.resample(None)]
    except (av.FFmpegError, ValueError, MemoryError, UnicodeDecodeError) as error:
        # A recording that breaks off is used as far as it goes.
        if not size:
            raise RefusedError(_UNKNOWN) from error
    samples = np.concatenate(pieces)
    if not np.isfinite(samples).all():
        raise RefusedError("the recording holds samples that are not finite numbers")
    return samples


if __name__ == "__main__":
    sys.exit(main())
