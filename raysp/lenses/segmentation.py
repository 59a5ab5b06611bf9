"""Cut a prompt into components, and write it again without some of them. Operates on text only, not on tokens or models.

Leaving out words or longer units gives what a person would have typed without them: the kept pieces joined by one space (lines by a line break, paragraphs
by an empty line, pieces of a delimiter by the separator that is most common between them). Sentences keep what stands between them: nothing in Chinese, a
space in English, an empty line between paragraphs. Spans leave the text between them as it is; where a span goes, no doubled or outer blanks stay behind.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from raysp.blobs import read_bytes
from raysp.errors import UserError
from raysp.masks import Masks
from raysp.specs.lenses import FeatureLens, Unit, is_list, parse_spans

Span = tuple[int, int]
_WORD = re.compile(r"\S+")
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
# A sentence of any script ends behind marks with the Unicode property Sentence_Terminal and what closes quotes and brackets. The marks of Latin text also stand
# within numbers and names: they end a sentence before white space, at the end of a line, or before a script that is written without spaces.
_CLOSING = r"[\"'\p{Pe}\p{Pf}]*"
_SENTENCE_END = regex.compile(
    rf"(?V1)[.!?…．]*[\p{{Sentence_Terminal}}--[.!?．]][\p{{Sentence_Terminal}}…]*{_CLOSING}(?!\d)"
    rf"|[.!?…．]+{_CLOSING}(?=\s|$)|[.!?．]+{_CLOSING}(?=[\p{{Han}}\p{{Hiragana}}\p{{Katakana}}])|\n+"
)
_NO_SENTENCE_END = re.compile(r"(?:^|[\s(\"'“])(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|No|Fig|approx|[A-Z])\.$")
_KIND = {"delimiter": "piece", "spans": "span"}


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The components of a prompt: ascending character spans that hold text, and what joins them.

    Without a joiner, `gaps` are the white space behind each component but the last; where there are none either, the text between components stays.
    """

    prompt: str
    spans: tuple[Span, ...]
    kind: str
    joiner: str | None
    gaps: tuple[str, ...] = ()

    @property
    def pieces(self) -> list[str]:
        """The components' texts."""
        return [self.prompt[start:stop] for start, stop in self.spans]

    def without(self, masks: Masks, replacement: str | None = None) -> list[str]:
        """The prompt under each mask (bool, `(m, n)`), with components left out, or replaced by a text."""
        pieces = self.pieces
        if self.gaps:
            return [self._rejoined(mask, pieces, replacement) for mask in masks.tolist()]
        if self.joiner is None:
            return [self._spliced(mask, pieces, replacement) for mask in masks.tolist()]
        joiner = self.joiner
        if replacement is None:
            return [joiner.join(itertools.compress(pieces, mask)) for mask in masks.tolist()]
        return [joiner.join(piece if kept else replacement for piece, kept in zip(pieces, mask, strict=True)) for mask in masks.tolist()]

    def whole(self) -> tuple[str, list[Span]]:
        """The prompt as it is written with every component kept, and where in it each of them stands."""
        if self.gaps:
            begins, ends = self.spans[0][0], self.spans[-1][1]
            return self.prompt[begins:ends], [(start - begins, stop - begins) for start, stop in self.spans]
        if self.joiner is None:
            return self.prompt, list(self.spans)
        pieces, step = self.pieces, len(self.joiner)
        starts = itertools.accumulate((len(piece) + step for piece in pieces[:-1]), initial=0)
        return self.joiner.join(pieces), [(start, start + len(piece)) for start, piece in zip(starts, pieces, strict=True)]

    def _rejoined(self, mask: list[bool], pieces: Sequence[str], replacement: str | None) -> str:
        """The kept pieces with the widest gap that stood between each two of them: a line break goes before a space."""
        text, last = "", -1
        for number, kept in enumerate(mask):
            put = pieces[number] if kept else replacement
            if put is None:
                continue
            gap = max(self.gaps[last:number], key=lambda gap: (gap.count("\n"), len(gap))) if last >= 0 else ""
            text, last = text + gap + put, number
        return text

    def _spliced(self, mask: list[bool], pieces: Sequence[str], replacement: str | None) -> str:
        if all(mask):
            return self.prompt
        text, end, gap = "", 0, False
        for kept, piece, (start, stop) in zip(mask, pieces, self.spans, strict=True):
            text, gap = _append(text, self.prompt[end:start], gap)
            put = piece if kept else replacement
            text, gap = (text, True) if put is None else _append(text, put, gap)
            end = stop
        return _append(text, self.prompt[end:], gap)[0].strip()


def _append(text: str, following: str, gap: bool) -> tuple[str, bool]:
    """Text with what follows it; behind a gap, one of two runs of blanks that meet is dropped. Also whether the gap is still open."""
    if gap and (not text or text[-1].isspace()):
        following = following.lstrip()
    return text + following, gap and not following


def segment(lens: FeatureLens) -> Segmentation:
    """The components that a lens asks for; unit `token` needs a tokenizer and is handled elsewhere.

    UserError for an empty prompt, fewer than two components, and an option that the unit lacks.
    """
    if not lens.prompt.strip():
        raise UserError("prompt", lens.prompt, "is empty", "give the text whose parts are to be ablated")
    for name in ("delimiter", "spans"):
        if lens.unit == name and not getattr(lens, name):
            raise UserError(name, getattr(lens, name), f"is needed by unit {name}", f"give {name}, or another unit")
    spans = _find(lens)
    if len(spans) < 2:
        raise UserError("prompt", lens.prompt, f"has one component with unit {lens.unit}", "give a longer prompt or a smaller unit")
    kind, gaps = _KIND.get(lens.unit, lens.unit), tuple(lens.prompt[before[1] : after[0]] for before, after in itertools.pairwise(spans))
    if lens.unit == "sentence" and any(gap != " " for gap in gaps):
        return Segmentation(lens.prompt, tuple(spans), kind, None, gaps)
    return Segmentation(lens.prompt, tuple(spans), kind, _joiner(lens.unit, gaps))


def _find(lens: FeatureLens) -> list[Span]:
    text = lens.prompt
    if lens.unit == "word":
        return [match.span() for match in _WORD.finditer(text)]
    if lens.unit == "line":
        return _trimmed(text, [match.span() for match in _LINE.finditer(text)])
    if lens.unit == "paragraph":
        return _trimmed(text, _between(text, [match.span() for match in _PARAGRAPH_BREAK.finditer(text)]))
    if lens.unit == "sentence":
        return _sentences(text)
    if lens.unit == "delimiter":
        return _trimmed(text, _between(text, [match.span() for match in re.finditer(re.escape(lens.delimiter or ""), text)]))
    return _user_spans(lens)


def _sentences(text: str) -> list[Span]:
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _NO_SENTENCE_END.search(text, max(0, match.end() - 10), match.end())]
    return _trimmed(text, list(itertools.pairwise([0, *ends, len(text)])))


def _between(text: str, breaks: list[Span]) -> list[Span]:
    starts = [0, *(stop for _, stop in breaks)]
    return list(zip(starts, [*(start for start, _ in breaks), len(text)], strict=True))


def _trimmed(text: str, spans: list[Span]) -> list[Span]:
    """Spans without blanks at their edges; those that held nothing else are dropped."""
    found: list[Span] = []
    for start, stop in spans:
        piece = text[start:stop]
        if piece.strip():
            found.append((start + len(piece) - len(piece.lstrip()), stop - len(piece) + len(piece.rstrip())))
    return found


def _user_spans(lens: FeatureLens) -> list[Span]:
    spans = parse_spans(_spans_text(lens.spans or ""))
    for start, stop in spans:
        if not 0 <= start < stop <= len(lens.prompt):
            raise UserError("spans", [start, stop], f"lies outside the prompt of {len(lens.prompt)} characters", "give spans [start, stop] with start < stop")
        if not lens.prompt[start:stop].strip():
            raise UserError("spans", [start, stop], "holds no text", "give spans that cover words")
    return spans


def _spans_text(given: str) -> str:
    if is_list(given):
        return given
    try:
        return read_bytes(given).decode("utf-8")
    except (OSError, ValueError):
        raise UserError("spans", given, "is neither a JSON list nor a file that can be read", "write for example [[0, 5], [6, 12]]") from None


def _joiner(unit: Unit, gaps: Sequence[str]) -> str | None:
    if unit == "spans":
        return None
    if unit == "delimiter":
        return Counter(gaps).most_common(1)[0][0]
    return {"line": "\n", "paragraph": "\n\n"}.get(unit, " ")
