"""What was heard beside what should have been said, as HTML."""

from __future__ import annotations

import re
from html import escape

_CHANGE = re.compile(r"\[-(?P<missing>.*?)-\]|\{\+(?P<heard>.*?)\+\}")


def diff_html(diff: str) -> str:
    """HTML of a difference in wdiff's notation, `the [-quick-] {+red+} fox`, that can also be listened to."""
    parts, end = [], 0
    for change in _CHANGE.finditer(diff):
        parts.append(escape(diff[end : change.start()]))
        missing, heard = change["missing"], change["heard"]
        if missing is not None:
            parts.append(f'<del><span class="aloud">missing: </span>{escape(missing)}</del>')
        else:
            parts.append(f'<ins><span class="aloud">heard: </span>{escape(heard)}</ins>')
        end = change.end()
    return "".join([*parts, escape(diff[end:])])
