"""Greedy questions that were asked before: answered from memory, and never twice at once."""

from collections import OrderedDict

from pipeline.twig.requests import Answer, Request, RequestId, Text
from schemas.errors import RecordFailure

_MAX_ANSWERS = 4096  # some kilobytes each; the first thoughts of a group's rollouts come together


class AnswerCache:
    """Greedy questions and their answers: a question is a pure function of what it says.

    Other requests pass it by. It holds the last `_MAX_ANSWERS` answers that were used.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[Request, Answer] = OrderedDict()
        self._waiting: dict[Request, list[RequestId]] = {}

    def try_answer(self, request: Request) -> Answer | None:
        """The answer, if the request was answered before."""
        if not _is_greedy_text(request) or request not in self._answers:
            return None
        self._answers.move_to_end(request)
        return self._answers[request]

    def wait_if_asked(self, request_id: RequestId, request: Request) -> bool:
        """Whether the same is at work already; `keep` then tells this id's answer, too.

        If not, it is at work from now on: the caller answers it, and calls `keep`.
        """
        if not _is_greedy_text(request):
            return False
        if request in self._waiting:
            self._waiting[request].append(request_id)
            return True
        self._waiting[request] = []
        return False

    def keep(
        self, request: Request, answer: Answer | RecordFailure
    ) -> list[tuple[RequestId, Answer | RecordFailure]]:
        """Take an answer in; those who wait for it, with the same answer.

        A failure is told to those who wait, and is not remembered.
        """
        if not _is_greedy_text(request):
            return []
        if not isinstance(answer, RecordFailure):
            self._answers[request] = answer
        while len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)
        return [(waiting, answer) for waiting in self._waiting.pop(request, [])]

    def forget(self) -> None:
        """Forget the answers, and not who still waits for one."""
        self._answers.clear()


def _is_greedy_text(request: Request) -> bool:
    return isinstance(request, Text) and request.temperature == 0
