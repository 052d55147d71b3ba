"""A head that is gone ends the process before Ray does, whatever else hangs."""

import threading

import pytest

from jobs.cluster.head_watch import HeadWatch, patience_seconds


def test_a_head_that_is_silent_for_too_long_is_gone_once():
    ended: list[float] = []
    is_told = threading.Event()

    def end(silent_seconds: float) -> None:
        ended.append(silent_seconds)
        is_told.set()

    watch = HeadWatch("head", end, ask=lambda address: False, patience=0.1, ask_seconds=0.01)
    with watch.watching():
        assert is_told.wait(20)
        threading.Event().wait(0.3)
    assert len(ended) == 1
    assert ended[0] > 0.1


def test_a_question_that_never_comes_back_does_not_hide_that_the_head_is_gone():
    is_told, is_over = threading.Event(), threading.Event()

    def hang(address: str) -> bool:
        is_over.wait(20)
        return False

    watch = HeadWatch("h", lambda _: is_told.set(), ask=hang, patience=0.1, ask_seconds=0.01)
    with watch.watching():
        assert is_told.wait(20)
    is_over.set()


def test_a_head_that_answers_is_there_however_long_it_takes():
    ended: list[float] = []
    answers = iter([True, False] * 1000)
    watch = HeadWatch("h", ended.append, ask=lambda _: next(answers), patience=5, ask_seconds=0.01)
    with watch.watching():
        threading.Event().wait(0.3)
        assert watch.is_there()
    assert not ended


@pytest.mark.parametrize(("setting", "seconds"), [("30", 20), ("garbage", 40), (None, 40)])
def test_the_watch_ends_the_process_before_ray_would(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, seconds: float
):
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s", raising=False)
    if setting is not None:
        monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", setting)

    assert patience_seconds() == pytest.approx(seconds)
