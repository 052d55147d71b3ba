"""Checks of what was said, without a model: is a thought, or a critique, fit to be learned from?

They read English. Of a prompt in another language they say nothing (None), and never that it is
fine.
"""

import re
from collections.abc import Mapping, Sequence

from pipeline.prompts.language import is_english
from pipeline.scoring.scorers import TRACE, Score, ScoringInput
from schemas.json_values import JsonMapping
from schemas.rows import EventRow, ScoreValue
from schemas.scores import ColumnType
from schemas.trace import Role, Verdict


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s+\S)")
# Thoughts say what is seen, not where on the page: the paper forbids these words.
_ANCHORS = _set(
    "top middle bottom upper lower layer layers section sections part parts band bands half third "
    "canvas foreground background"
)
# Where an anchor is no place on the page: "on top of", "in the middle of", and names of things.
_INNOCENT = re.compile(
    r"\b(?:on top of|in the middle of|(?:a |be )?part of"
    r"|top[- ](?:hats?|knots?|coats?|quality|secret|notch|models?|chefs?|heavy)"
    r"|(?:tank|crop|halter|tube|big|roof|table|mountain|tree|hill|desk|counter|stove|pajama|bikini"
    r"|spinning|carrot|cliff|muffin|pop|flip|zip|bench|lace|wrap|flat|screw|soft|hard)[- ]tops?"
    r"|bell[- ]bottoms?|(?:pajama|bikini|pyjama|bell|sea|river|lake|ocean)[- ]bottoms?"
    r"|(?:rubber|marching|rock|jazz|brass|head|wrist|wedding|hair|elastic|military|school|garage|boy"
    r"|sweat|watch|cover|string|steel|arm|punk|metal|folk|pop|live|big|hat|waist|gold|silver)"
    r"[- ]bands?"
    r"|bands? (?:of (?:musicians|players|brothers)|members?|stands?|leaders?|shells?|saws?|aids?"
    r"|concerts?|play(?:s|ing)?)"
    r"|band[- ]?aids?|layer cakes?"
    r"|layers? of (?:snow|ice|dust|icing|frosting|cream|cheese|paint|chocolate|sponge|moss)"
    r"|(?:car|auto|spare|engine|body|machine|bicycle|robot) parts|part[- ]time"
    r"|middle[- ](?:aged?|finger|east|ages|class|school)"
    r"|(?:upper|lower) (?:lips?|arms?|body|legs?|decks?|jaws?|teeth|back|case|branches|floors?)"
    r"|half[- ](?:moons?|eaten|open|timbered|full|empty|dozen|finished|peeled|closed)"
    r"|half an?|third (?:floor|eye|person|wheel|base|one)"
    r"|canvas (?:shoes?|sneakers|bags?|totes?|tents?|awnings?|sails?|sacks?|chairs?|shoulder bags?"
    r"|backpacks?|jackets?|trousers|hammocks?|tarps?))\b"
)
_NO_NOUNS = _set(
    "a an the this that these those of on in at to with and or by from for under over above below "
    "beneath behind between beside near next left right side front is are was were be being there "
    "it its his her their photo picture image drawing painting one two three four five six seven "
    "eight nine ten"
)


class ThoughtChecks:
    """Thoughts: one sentence, no words for places on the page, nothing said twice. The whole
    trace: are the nouns of the prompt said in the thoughts that were drawn?
    """

    name = "thoughts"
    version = "1"
    subjects = frozenset({TRACE, Role.THINK.value})
    needs_pictures = False
    columns: Mapping[str, ColumnType] = {
        "value": "float32",  # 1: every check of its own passed
        "one_sentence": "float32",
        "no_anchors": "float32",
        "novelty": "float32",  # 1 less the likeness to the nearest earlier thought
        "nouns_covered": "float32",  # of a trace: the share
    }

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [
            self._score_trace(scoring_input)
            if scoring_input.event is None
            else self._score_thought(scoring_input, scoring_input.event)
            for scoring_input in batch
        ]

    def _score_trace(self, scoring_input: ScoringInput) -> Score:
        nouns = nouns_of(scoring_input.prompt, scoring_input.metadata)
        drawn = [event["text"] for event in scoring_input.events if _is_kept_drawing(event)]
        if not nouns or not drawn:
            return Score(value=None)
        said = {_stem(word) for text in drawn for word in words_of(text)}
        covered = sum(all(_stem(word) in said for word in words_of(noun)) for noun in nouns)
        return Score(value=None, parts={"nouns_covered": covered / len(nouns)})

    def _score_thought(self, scoring_input: ScoringInput, thought: EventRow) -> Score:
        if not is_english(scoring_input.prompt):
            return Score(value=None)
        text = thought["text"]
        earlier = [
            event["text"]
            for event in scoring_input.events
            if event["role"] == Role.THINK and event["index"] < thought["index"]
        ]
        checks = {
            "one_sentence": float(is_one_sentence(text)),
            "no_anchors": float(not anchors_in(text)),
        }
        novelty = 1 - max(likeness(text, other) for other in earlier) if earlier else None
        return Score(value=min(checks.values()), parts={**checks, "novelty": novelty})


class CritiqueChecks:
    """Critiques: can it be used, is the score a round one, is the better thought another one?"""

    name = "critiques"
    version = "1"
    subjects = frozenset({Role.REFLECT.value})
    needs_pictures = False
    columns: Mapping[str, ColumnType] = {
        "value": "float32",  # 1: it can be used
        "multiple_of_five": "float32",  # the question forbids rounding to fives
        "revision_differs": "float32",  # null where nothing is to be revised
        "better_one_sentence": "float32",
        "better_no_anchors": "float32",
    }

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [self._score_critique(scoring_input) for scoring_input in batch]

    def _score_critique(self, scoring_input: ScoringInput) -> Score:
        critique = scoring_input.event
        assert critique is not None  # its only subjects are critiques
        verdict, score = critique["verdict"], critique["score"]
        better = critique["better_thought"]
        parts: dict[str, ScoreValue] = {}
        if score is not None:
            parts["multiple_of_five"] = float(score % 5 == 0)
        if verdict == Verdict.REVISE:
            assert better is not None  # or the verdict would be unparseable
            judged = thought_judged(scoring_input.events, critique, scoring_input.prompt)
            parts["revision_differs"] = float(words_of(better) != words_of(judged))
        if better and is_english(scoring_input.prompt):
            parts["better_one_sentence"] = float(is_one_sentence(better))
            parts["better_no_anchors"] = float(not anchors_in(better))
        return Score(value=float(verdict != Verdict.UNPARSEABLE), parts=parts)


def thought_judged(events: Sequence[EventRow], critique: EventRow, prompt: str) -> str:
    """The thought that the drawing which a critique judged was made from, or that a drawing itself
    was; the prompt where nothing was thought. `events` are all of the trace, in order.
    """
    thought = prompt
    for event in events[: critique["index"]]:
        if event["region"] != critique["region"]:
            continue
        if event["role"] == Role.THINK:
            thought = event["text"]
        elif event["role"] == Role.REFLECT and event["revision"] < critique["revision"]:
            thought = event["better_thought"] or thought
    return thought


def words_of(text: str) -> list[str]:
    """The words in small letters, without punctuation."""
    words: list[str] = _WORD.findall(text.lower())
    return words


def is_one_sentence(text: str) -> bool:
    """Whether a text is there, and nothing in it ends before its end."""
    return bool(text.strip()) and not _SENTENCE_END.search(text)


def anchors_in(text: str) -> set[str]:
    """The words for places on the page in a text."""
    return set(words_of(_INNOCENT.sub(" ", text.lower()))) & _ANCHORS


def likeness(text: str, other: str) -> float:
    """The share of words in common, from 0 to 1 (Jaccard)."""
    words, others = set(words_of(text)), set(words_of(other))
    return len(words & others) / len(words | others) if words | others else 1.0


def nouns_of(prompt: str, metadata: JsonMapping) -> list[str]:
    """What a prompt names: the record's own `nouns`, or else its words that carry meaning."""
    nouns = metadata.get("nouns")
    if isinstance(nouns, list):
        named = [noun for noun in nouns if isinstance(noun, str)]
        if len(named) == len(nouns):
            return [noun for noun in named if words_of(noun)]
    if not is_english(prompt):
        return []
    return sorted({word for word in words_of(prompt) if word not in _NO_NOUNS})


def _is_kept_drawing(event: EventRow) -> bool:
    return event["role"] == Role.DRAW and event["superseded_by"] is None


def _stem(word: str) -> str:
    """A word without the ending of its plural."""
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
