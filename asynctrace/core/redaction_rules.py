"""Rules: what counts as a secret, what is known to be none, and who is asked what stands for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from asynctrace.core.redaction_keys import KeyNames
from asynctrace.core.redaction_match import Callback
from asynctrace.core.redaction_patterns import TextPatterns

_KNOWN = 10_000  # texts remembered as harmless
_SHORT = 200  # characters of a text that is remembered


class Rules:
    """What one redactor goes by, and what it counts.

    Args:
        names: which names of fields stand for secrets.
        patterns: finds secrets inside text.
        in_texts: whether texts are looked at, too.
        callback: asked about each match, if there is one.
    """

    def __init__(
        self, names: KeyNames, patterns: TextPatterns, *, in_texts: bool, callback: Callback | None
    ) -> None:
        self.names = names
        self.patterns = patterns
        self.in_texts = in_texts
        self.callback = callback
        self.counts: Counter[str] = Counter()
        self.errors = 0
        self.harmless: set[str] = set()  # texts found so: most programs say the same again and again

    def is_suspicious(self, text: str) -> bool:
        """Whether the text may hold a secret; False is certain, and remembered."""
        if self.patterns.suspicious(text):
            return True
        self.remember((text,))
        return False

    def remember(self, texts: Iterable[str]) -> None:
        """These hold no secret."""
        if len(self.harmless) > _KNOWN:
            self.harmless.clear()
        self.harmless.update(text for text in texts if len(text) <= _SHORT)
