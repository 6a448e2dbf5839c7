"""A listening test as a static page: `make_kit`.

Listeners see samples in an order of their own, under names that tell nothing, and save their answers as a CSV file.
Which sample was whose stands in the key, which stays with the experimenter. The scales are that of ITU-T P.800 (MOS:
naturalness) and, beside the prompt, likeness of the voice (SMOS).
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from valle.common.errors import UserError
from valle.common.files import check_folder, check_writable
from valle.eval.report.media import load_sound
from valle.eval.saved_results import System

REFERENCE = "real recording"
KEY_VERSION = 1
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Scale:
    """A question and its five answers, from 5 down to 1."""

    question: str
    answers: tuple[str, str, str, str, str]
    beside_prompt: bool


SCALES = {
    "mos": Scale(
        "How natural is this speech?",
        ("Excellent: completely natural", "Good", "Fair", "Poor", "Bad: completely unnatural"),
        beside_prompt=False,
    ),
    "smos": Scale(
        "How alike are the two voices? Judge the voice only, not the sound quality or the words.",
        ("Certainly the same person", "Probably the same", "Not sure", "Probably another", "Certainly another person"),
        beside_prompt=True,
    ),
}


def make_kit(
    systems: Sequence[System],
    folder: Path,
    key: Path,
    scale: str = "mos",
    texts: int = 20,
    seed: int = 0,
    with_reference: bool = True,
) -> int:
    """Write a listening test of `systems` into `folder` and what its samples are into `key`; returns their number.

    texts:          the same texts of every system, drawn at random with `seed`
    with_reference: also the real recordings of these texts, where the list has them
    Raises `UserError` for an unknown scale, for missing sounds, and for a key that listeners would get.
    """
    if scale not in SCALES:
        raise UserError(f"unknown scale '{scale}'; known ones: {', '.join(SCALES)}")
    check_folder(folder)
    check_writable(key, (".json",))
    if folder.resolve() in key.resolve().parents:
        raise UserError(f"the key {key} would be handed out with the test; put it outside of {folder}")
    if texts < 1:
        raise UserError(f"--texts must be 1 or more, got {texts}")
    common = [id_ for id_ in systems[0].rows if all(id_ in system.rows for system in systems)]
    if len(common) < texts:
        raise UserError(f"only {len(common)} texts are in all results, not {texts}; lower --texts")
    chosen = random.Random(seed).sample(common, texts)
    sources = {(system.name, id_): system.audio(id_) for system in systems for id_ in chosen}
    if with_reference:
        real = {(REFERENCE, id_): systems[0].reference(id_) for id_ in chosen}
        sources |= {where: path for where, path in real.items() if path}
    samples, entries = [], {}
    for (system_name, id_), path in sources.items():
        name = _blind_name(seed, system_name, id_)
        prompt_id = systems[0].rows[id_].texts.get("prompt", "")
        prompt = systems[0].prompt(prompt_id) if SCALES[scale].beside_prompt else None
        if SCALES[scale].beside_prompt and prompt is None:
            raise UserError(f"the prompt of {id_} is not in {systems[0].folder}; evaluate again with --out")
        _put(path, folder / "audio" / f"{name}.mp3", f"{system_name}: {id_}")
        sample = {"id": name, "sound": f"audio/{name}.mp3"}
        if prompt:
            voice = _blind_name(seed, "prompt", prompt_id)
            _put(prompt, folder / "audio" / f"{voice}.mp3", f"prompt {prompt_id}")
            sample["prompt"] = f"audio/{voice}.mp3"
        samples.append(sample)
        entries[name] = {"system": system_name, "text": id_}
    # In the order of names that tell nothing: the file itself gives nothing away either.
    samples.sort(key=lambda sample: sample["id"])
    test = hashlib.sha256("".join(entries).encode()).hexdigest()[:8]
    (folder / "index.html").write_text(_page(scale, test, samples), encoding="utf-8")
    content = {"format_version": KEY_VERSION, "test": test, "scale": scale, "seed": seed, "samples": entries}
    key.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(samples)


def _put(source: Path | None, path: Path, what: str) -> None:
    sound = load_sound(source) if source else None
    if sound is None:
        raise UserError(f"there is no sound of {what}; evaluate again with --out")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sound.mp3)


def _blind_name(seed: int, system: str, id_: str) -> str:
    return hashlib.sha256(f"{seed}/{system}/{id_}".encode()).hexdigest()[:10]


def _page(scale: str, test: str, samples: list[dict[str, str]]) -> str:
    chosen = SCALES[scale]
    data = {"test": test, "scale": scale, "samples": samples}
    answers = "".join(
        f'<label><input type="radio" name="score" value="{5 - i}"><span><b>{5 - i}</b> {escape(answer)}</span></label>'
        for i, answer in enumerate(chosen.answers)
    )
    page = (_HERE / "kit.html").read_text(encoding="utf-8")
    # "</" would end the script.
    parts = {"question": escape(chosen.question), "answers": answers, "data": json.dumps(data).replace("</", "<\\/")}
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part)
    return page
