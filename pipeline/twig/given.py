"""Thoughts that come with the prompt, for programs that draw from them: nobody is asked for one.

A program stays what it is. What it would ask a model is answered here, and the trace says so.
"""

from collections.abc import Sequence

from pipeline.twig.programs import Running, Told
from pipeline.twig.requests import Text, TextAnswer
from schemas.errors import RolloutError
from schemas.trace import Finish, Role


def with_thoughts(program: Running, thoughts: Sequence[str]) -> Running:
    """The program, with one of these thoughts for each region that it would ask one for."""
    try:
        asked = next(program)
        while True:
            if isinstance(asked, Text) and asked.role is Role.THINK:
                thought = thoughts[asked.region]
                yield Told(asked, thought)
                asked = program.send(_as_answer(thought))
                continue
            try:
                answer = yield asked
            except RolloutError as failure:
                asked = program.throw(failure)
            else:
                asked = program.send(answer)
    except StopIteration as end:
        codes: tuple[int, ...] = end.value
        return codes


def _as_answer(thought: str) -> TextAnswer:
    return TextAnswer(prefix_ids=None, text=thought, token_ids=None, finish=Finish.STOP)
