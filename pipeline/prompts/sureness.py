"""How sure a reading is, and what of it is sure where the whole is not.

Rules that fit short prompts go wrong in captions of several sentences. There a spec holds only
objects whose words are known, what stood right before their nouns, and relations of neighbours.
"""

from collections.abc import Sequence
from itertools import pairwise

from pipeline.prompts.lexicon import Lexicon
from pipeline.prompts.reading import Reading
from pipeline.prompts.seen import SeenObject
from schemas.specs import Confidence, Relation

_MAX_SHORT_WORDS = 32  # of a prompt that is read whole
_MAX_SHORT_SENTENCES = 2


def confidence_of(
    words: Sequence[str], reading: Reading, words_of: Lexicon
) -> tuple[Confidence, str]:
    """How far a spec may be trusted, and why: LOW says that only a part of it may."""
    num_words = sum(word[0].isalnum() for word in words)
    num_sentences = 1 + sum(
        word in (".", "!", "?") and follows[0].isalnum() for word, follows in pairwise(words)
    )
    if num_words > _MAX_SHORT_WORDS or num_sentences > _MAX_SHORT_SENTENCES:
        return Confidence.LOW, f"a caption of {num_words} words: only what is sure of it"
    unknown = [seen.noun for seen in reading.seen if not _is_known(seen, words_of)]
    if unknown:
        return Confidence.MEDIUM, f"unknown nouns: {', '.join(dict.fromkeys(unknown))}"
    if reading.had_clause:
        return Confidence.MEDIUM, "a relative clause"
    if reading.had_negation:
        return Confidence.MEDIUM, "a negation or a comparison: what it names is left out"
    if reading.had_doubt:
        return Confidence.MEDIUM, "a sentence that may be read in more than one way is left out"
    if num_sentences > 1:
        return Confidence.MEDIUM, "several sentences"
    return Confidence.HIGH, "a short prompt of known words"


def sure_part(reading: Reading, words_of: Lexicon) -> tuple[list[SeenObject], tuple[Relation, ...]]:
    """The objects that are sure, with the attributes that are, and the relations between them."""
    kept = [index for index, seen in enumerate(reading.seen) if _is_sure(seen, words_of)]
    seen = []
    for index in kept:
        own = reading.seen[index]
        own.attributes = [
            attribute
            for attribute in own.attributes[: own.num_own_attributes]
            if attribute.value in words_of.attributes
        ]
        own.is_one = False  # among so many objects "a" is hardly meant as a number
        seen.append(own)
    at = {index: position for position, index in enumerate(kept)}
    relations = [
        relation.model_copy(
            update={"subject": at[relation.subject], "object": at[relation.object or 0]}
        )
        for relation in reading.told.relations
        if relation in reading.told.sure
        and _is_plain(relation.relation, words_of)
        and relation.subject in at
        and relation.object in at
    ]
    return seen, tuple(dict.fromkeys(relations))


def _is_plain(relation: str, words_of: Lexicon) -> bool:
    """A position or a bare verb; what belongs to a verb and a preposition is told in many ways."""
    names = {preposition.name for preposition in words_of.prepositions.values()}
    return " " not in relation or (relation in names and relation != "covered in")


def _is_known(seen: SeenObject, words_of: Lexicon) -> bool:
    words = seen.noun.split()
    return seen.noun in words_of.objects or all(
        word in ("of", *words_of.gerunds) or word in words_of.attributes or words_of.is_noun(word)
        for word in words
    )


def _is_sure(seen: SeenObject, words_of: Lexicon) -> bool:
    head = seen.noun.split()[-1]
    is_thing = head in words_of.objects and head not in words_of.vague
    if seen.is_doubtful or not is_thing or not _is_known(seen, words_of):
        return False
    return seen.is_introduced or head not in words_of.verbs
