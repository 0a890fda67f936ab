"""What the command line answers to a mistake: what is wrong, the nearest right names, where to read more."""

from collections.abc import Iterable
from difflib import SequenceMatcher

WIDTH = 200  # characters of a line of an answer


class Mistake(Exception):
    """An answer of at most three lines: what is wrong, and up to two hints."""

    def __init__(self, wrong: str, *hints: str):
        lines = [f"error: {wrong}", *(f"       {hint}" for hint in hints if hint)][:3]
        super().__init__("\n".join(_one_line(line) for line in lines))


def _one_line(text: str) -> str:
    text = text.rstrip().replace("\n", " ")
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."


def nearest(word: str, names: Iterable[str], most: int = 3) -> list[str]:
    """The names that ``word`` may have meant, best first; [] if nothing is near."""
    scored = sorted(((_likeness(word, name), name) for name in set(names)), key=lambda pair: (-pair[0], pair[1]))
    best = scored[0][0] if scored else 0
    return [name for score, name in scored[:most] if score >= max(0.6, best - 0.12)]


def _likeness(word: str, name: str) -> float:
    """Similarity, 0 .. 1. A path may be written without its first parts: `rank` is near conditioning.attn.x.rank."""
    word, name = word.lower().replace("/", "."), name.lower().replace("/", ".")
    tail = ".".join(name.split(".")[-word.count(".") - 1 :])
    return max(_ratio(word, name), 0.85 * _ratio(word, tail))


def _ratio(a: str, b: str) -> float:
    swapped = 0.9 if a != b and sorted(a) == sorted(b) else 0.0  # which the ratio underrates in short names
    return max(swapped, SequenceMatcher(None, a, b, autojunk=False).ratio())


def suggest(word: str, names: Iterable[str], write: str = "{}", every: str = "choose from {}") -> str:
    """A hint: the nearest names, each put into ``write``; where none is near, all of them."""
    names = sorted(set(names))
    near = [write.format(name) for name in nearest(word, names)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return every.format(", ".join(names)) if names else ""
