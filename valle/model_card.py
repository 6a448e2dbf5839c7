"""The README.md of a model folder, in the form that the Hugging Face Hub reads."""

from __future__ import annotations

from typing import Any

_TEMPLATE = """---
license: {license}
pipeline_tag: text-to-speech
library_name: valle
---
# A voice-cloning model for `valle`

```
valle clone --model THIS_FOLDER --prompt me.wav --text "Any sentence." --out out.wav
```

| part | |
|---|---|
| codec | {codec} |
| AR | {ar} |
| NAR | {nar} |
| flow | {flow} |
| text | {text} |
| languages | {languages} |
| aligner | {aligner} |

## Origin
{provenance}

## Use
The model imitates a voice from a recording. Use it only with the consent of the person whose voice it is,
and say that the result is synthetic.
"""


def model_card(config: dict[str, Any]) -> str:
    """The card of a bundle with this `config.json`."""
    spec, model, provenance = config["spec"], config["model"], config["provenance"]
    invariant = ""
    if spec["n_time_invariant"]:
        invariant = f" + {spec['n_time_invariant']} × {spec['time_invariant_size']} time-invariant codes"
    rate = spec["sample_rate"] / spec["hop_length"]
    return _TEMPLATE.format(
        license=provenance.get("license", "unknown"),
        codec=f"{spec['name']}, {spec['sample_rate']} Hz, {rate:g} frames per second, "
        f"{spec['n_q']} × {spec['codebook_size']} codes{invariant}",
        ar=_transformer(model["ar"]),
        nar=_transformer(model["nar"]) if model["nar"] else "none",
        flow=_transformer(model["flow"]) if model.get("flow") else "none",
        text=f"{model['text_tokenizer']['kind']}, {model['ar']['text_vocab_size']} symbols; its texts end in "
        + (f"`{' '.join(model['ends'])}`" if model["ends"] else "no mark"),
        languages=", ".join(model["languages"] or ["not recorded"]),
        aligner="yes" if model["aligner"] else "none",
        provenance="\n".join(f"- {name}: {value}" for name, value in provenance.items()) or "Not recorded.",
    )


def _transformer(config: dict[str, Any]) -> str:
    kind = "aligned, " if config["aligned"] else ""
    return f"{kind}{config['layers']} layers of width {config['dim']}, {config['heads']} heads"
