"""What the driver asks of an actor."""

from types import SimpleNamespace

from jobs.cluster.actors import RemoteActor
from schemas.runs import WorkerStatus


def test_an_actor_is_asked_how_it_is_now_and_then_and_not_while_it_is_silent():
    asked: list[str] = []
    status = SimpleNamespace(remote=lambda: asked.append("status") or f"answer {len(asked)}")
    actor = RemoteActor(SimpleNamespace(status=status), opening=None)

    actor.ask(now=0.0)
    actor.ask(now=5.0)
    assert len(asked) == 1
    assert actor.silent_seconds(now=5.0) == 5.0

    actor.note_status(WorkerStatus())
    actor.ask(now=5.5)
    assert len(asked) == 2

    actor.note_status(WorkerStatus())
    actor.ask(now=7.0)
    assert len(asked) == 2
    actor.ask(now=7.5)
    assert len(asked) == 3
