"""What the stand-in of a large model's server says to thinkers, critics, judges and readers."""

import json
import math
from typing import Any

from tests.stand_in_server import Asked, Reaction, completion, good_answer

FRENCH = "deux chats roux assis devant une maison bleue"  # beyond the parser

_HOUSE = {"words": "maison", "noun": "house", "count": None, "count_words": None, "attributes": []}
_CATS = _HOUSE | {"words": "chats", "noun": "cat", "count": 2, "count_words": "deux"}
_FRONT = {"words": "devant", "relation": "in front of", "subject": 0, "object": 1}
_BY_SCHEMA: dict[str, dict[str, Any]] = {
    "rubric": {"reasons": "It is there, and not well made.", "points": 60},
    "pair": {"reasons": "It is the clearer one.", "better": "first"},
    "prompt_spec": {
        "is_sure": True,
        "objects": [_CATS, _HOUSE],
        "relations": [_FRONT | {"kind": "3d-spatial"}],
    },
}


def answer(asked: Asked) -> Reaction:
    """As a well-behaved server answers, in the name of the model that was asked."""
    model = asked.body["model"]
    if asked.body.get("top_logprobs") and asked.body["max_tokens"] == 1:
        likely = [{"token": "Yes", "logprob": math.log(0.7)}]
        likely.append({"token": "No", "logprob": math.log(0.2)})
        first = likely[0] | {"top_logprobs": likely}
        return Reaction(body=completion("Yes", model=model, logprobs={"content": [first]}))
    if (name := asked.schema) in _BY_SCHEMA:
        return Reaction(body=completion(json.dumps(_BY_SCHEMA[name]), model=model))
    said = json.loads(good_answer(asked).body)
    return Reaction(body=json.dumps(said | {"model": model}).encode())
