"""A strict reading of Prometheus's text format, version 0.0.4: what is not in the format is an error.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_HEAD = re.compile(rf"# (HELP|TYPE) ({_NAME}) (.*)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)')
_NUMBER = re.compile(r"[+-]?(Inf|\d+(\.\d+)?(e[+-]?\d+)?)|NaN")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}

Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    """A metric: its kind, its help, and its samples by name and labels."""

    kind: str
    help: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """The only sample of that name with these labels among its own."""
        (value,) = [v for (n, own), v in self.samples.items() if n == name and labels.items() <= own]
        return value


def parse(text: str) -> dict[str, Family]:
    """The metrics by name."""
    assert text == "" or text.endswith("\n"), "the last line has no end"
    families: dict[str, Family] = {}
    lines = text.split("\n")[:-1]
    helped: tuple[str, str] | None = None
    current = ""
    for line in lines:
        head = _HEAD.fullmatch(line)
        if head is not None:
            what, name, rest = head.groups()
            if what == "HELP":
                assert name not in families, f"the lines of {name} are not together"
                assert re.fullmatch(r"(?:[^\\]|\\\\|\\n)*", rest), rest
                helped = name, _unescape(rest)
            else:
                assert helped is not None, "a type stands before any help"
                assert helped[0] == name, f"{name} has no help before its type"
                assert rest in _SUFFIXES, rest
                families[name], current = Family(rest, helped[1]), name
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, f"neither a comment nor a sample: {line!r}"
        name, labels, number = sample.groups()
        family = families[current]
        assert name in [current + suffix for suffix in _SUFFIXES[family.kind]], (
            f"{name} stands below {current}"
        )
        assert _NUMBER.fullmatch(number), number
        key = name, _labels(labels or "")
        assert key not in family.samples, f"twice: {line}"
        family.samples[key] = float(number)
    for name, family in families.items():
        assert family.samples, f"{name} has no sample"
        if family.kind == "counter":
            assert name.endswith("_total"), name
            assert all(value >= 0 for value in family.samples.values())
        if family.kind == "histogram":
            _check_histogram(name, family)
    return families


def _labels(text: str) -> Labels:
    found: dict[str, str] = {}
    while text:
        label = _LABEL.match(text)
        assert label is not None, f"no label: {text!r}"
        assert label[1] not in found, f"twice: {label[1]}"
        found[label[1]] = _unescape(label[2])
        text = text[label.end() :]
    return frozenset(found.items())


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def _check_histogram(name: str, family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            own = dict(labels)
            series.setdefault(frozenset(labels - {("le", own["le"])}), []).append((float(own["le"]), value))
    assert series, f"{name} has no bucket"
    for labels, buckets in series.items():
        assert buckets == sorted(buckets), "bounds and counts ascend"
        assert buckets[-1] == (math.inf, family.samples[f"{name}_count", labels])
        assert (f"{name}_sum", labels) in family.samples
