"""What a page shows and what a terminal says, compared.

A page was written down once; keys, words and times are others each time.  Two lines
are the same if they are but for these:

- what varies freely (times, addresses, sizes) needs only the same shape;
- what stands for somebody or something (fingerprints, words, ids, tokens) is bound:
  the same text of the page is the same text on every terminal of the run, and two
  different ones are two.  So a page that shows the same words twice is held to it,
  and a fingerprint that is typed is the one that was seen;
- ``…`` stands for anything.
"""

from __future__ import annotations

import re

_BOUND = {
    "key": r"SHA256:[A-Za-z0-9+/]{43}",
    "token": r"AEM1-[A-Za-z0-9_.-]+",
    "hex": r"\b(?:[0-9a-f]{32,64}|[0-9A-F]{32,64})\b",
    "words": r"(?<![\w/-])[a-z]+(?:-[a-z]+){3}(?![\w-])",
    # In a page with a digit and a letter: else any word of eight letters would be one.
    "id": r"\b(?=[a-z]*[2-7])(?=[2-7]*[a-z])[a-z2-7]{8}\b",
}
_FREE = {
    "moment": r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?(?:Z| UTC)?",
    "clock": r"(?<![\w:])\d\d:\d\d:\d\d(?![\w:])",
    "day": r"\b20\d\d-?[01]\d-?[0-3]\d\b",
    "address": (
        r"(?<![\w:.])(?:\d{1,3}(?:\.\d{1,3}){3}|\[?[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}"
        r"(?:%\w+)?\]?)(?::\d+)?"
    ),
    "pid": r"\bpid \d+",
    "measure": r"\b\d+(?:\.\d+)? (?:[KMG]iB|bytes|ms|s|min|h|cores?)\b",
    "number": r"\b\d+\.\d+\b",
    "home": r"/home/you(?=/)",
    "blanks": r" +",
    "anything": r"…",
}
# On a terminal, where that is wider than what a page shows.
_WIDER = {"anything": ".*?", "home": r"/\S+?", "id": r"\b[a-z2-7]{8}\b"}
_SHAPES = {**_BOUND, **_FREE}
_SHAPE = re.compile("|".join(f"(?P<{name}>{p})" for name, p in _SHAPES.items()))
_NAME = re.compile("|".join(f"(?P<{name}>{p})" for name, p in _BOUND.items()))


class Bindings:
    """Which text of a page is which text of this run; one for each run of a page."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __repr__(self) -> str:
        return ", ".join(f"{page} is {said}" for page, said in self._said.items())

    def meet(self, shown: str, said: str) -> bool:
        """Whether a line of a page is this line of a terminal; binds what is new."""
        pattern, new = self._pattern(shown)
        found = re.fullmatch(pattern, said.rstrip())
        if found is None:
            return False
        bound = {text: found[group] for text, group in new.items()}
        taken = {*self._said.values()}
        if taken & {*bound.values()} or len({*bound.values()}) < len(bound):
            return False
        self._said.update(bound)
        return True

    def put_in(self, typed: str) -> str:
        """Return what a person types here who reads this in the page."""
        return _NAME.sub(lambda found: self._said.get(found[0], found[0]), typed)

    def _pattern(self, shown: str) -> tuple[str, dict[str, str]]:
        """Return a pattern for a line, and which of its groups is which new text."""
        parts: list[str] = []
        new: dict[str, str] = {}
        at = 0
        text = shown.rstrip()
        for found in _SHAPE.finditer(text):
            parts.append(re.escape(text[at : found.start()]))
            parts.append(self._part(str(found.lastgroup), found[0], new))
            at = found.end()
        return "".join([*parts, re.escape(text[at:])]), new

    def _part(self, shape: str, text: str, new: dict[str, str]) -> str:
        pattern = _WIDER.get(shape, _SHAPES[shape])
        if shape in _FREE:
            return f"(?:{pattern})"
        if text in self._said:
            return re.escape(self._said[text])
        if text in new:
            return f"(?P={new[text]})"
        new[text] = f"g{len(new)}"
        return f"(?P<{new[text]}>{pattern})"
