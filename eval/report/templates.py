"""The templates of all pages beside this file: `render`, and how a difference is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_CHANGE = re.compile(r"\[-(?P<missing>.*?)-\]|\{\+(?P<heard>.*?)\+\}")


def diff_html(diff: str) -> Markup:
    """HTML of a difference in wdiff's notation, `the [-quick-] {+red+} fox`, that can also be listened to."""
    parts, end = Markup(), 0
    for change in _CHANGE.finditer(diff):
        tag, word = ("del", "missing") if change["missing"] is not None else ("ins", "heard")
        marked = Markup('<{0}><span class="aloud">{1}: </span>{2}</{0}>').format(tag, word, change[word])
        parts += diff[end : change.start()] + marked
        end = change.end()
    return parts + diff[end:]


def diff_markdown(diff: str) -> str:
    """The same in Markdown: ~~missing~~ and **heard**."""
    return diff.replace("[-", "~~").replace("-]", "~~").replace("{+", "**").replace("+}", "**")


def render(template: str, **values: Any) -> Markup:
    """The file `template` of this folder, filled with `values`; in HTML, what is no `Markup` is escaped."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"diff_html": diff_html, "diff_markdown": diff_markdown}
