"""What a critic and an exact scorer make of a region, and which traces tell something."""

import pytest

from pipeline.view.verdicts import (
    Drawing,
    Fate,
    JudgedTrace,
    counts_of,
    most_telling,
    of_each_fate,
)


def a_drawing(verdict=None, share=None, *, region=0):
    """A drawing that the critic gave this verdict; None: it was not asked."""
    return Drawing(
        event={"region": region},
        canvas=None,
        critique=None if verdict is None else {"verdict": verdict},
        share_right=share,
    )


def a_trace(*drawings, name=""):
    return JudgedTrace(row={"trace_id": name}, drawings=drawings, picture=None)


@pytest.mark.parametrize(
    ("drawings", "fate"),
    [
        ([("revise", 0.5), (None, 1.0)], Fate.REPAIRED),
        ([("revise", 0.5), (None, 0.5)], Fate.NOT_REPAIRED),
        ([("revise", 0.5), ("revise", 0.5), (None, 1.0)], Fate.REPAIRED),
        ([("revise", 1.0), (None, 1.0)], Fate.FALSE_ALARM),
        ([("revise", None), (None, None)], Fate.REJECTED),
        ([("accept", 0.75)], Fate.MISSED),
        ([("accept", 1.0)], Fate.PLAIN),
        ([("accept", None)], Fate.PLAIN),
        ([(None, 0.0)], Fate.PLAIN),  # nobody judged it, so nobody missed it
        ([("unparseable", 0.0)], Fate.UNREADABLE),
    ],
)
def test_a_region_comes_to_what_critic_and_scorer_say_of_its_drawings(drawings, fate):
    trace = a_trace(*(a_drawing(verdict, share) for verdict, share in drawings))

    assert trace.fates == {0: fate}


def test_traces_are_chosen_of_each_fate_in_turn_and_none_is_left_out():
    repaired = [("revise", 0.5), (None, 1.0)]
    kinds = [[("accept", 1.0)], repaired, repaired, [("accept", 0.5)], [("accept", 1.0)]]
    traces = [
        a_trace(*(a_drawing(*drawing) for drawing in kind), name=str(number))
        for number, kind in enumerate(kinds)
    ]

    def names(number):
        return "".join(trace.row["trace_id"] for trace in of_each_fate(traces, number))

    assert [names(2), names(3), names(9)] == ["13", "132", "13204"]


def test_counts_tell_what_came_of_all_regions():
    known = a_trace(
        a_drawing("revise", 0.5), a_drawing(None, 1.0), a_drawing("accept", 0.5, region=1)
    )
    unknown = a_trace(a_drawing("revise"), a_drawing())

    assert counts_of([known]) == (
        "1 trace of 2 regions: the critic rejected 1, of which 1 came out right when drawn again; "
        "it missed 1"
    )
    assert counts_of([unknown]).endswith("the critic rejected 1")


def a_row(name, *regions, status="ok"):
    """A trace by the scores of its regions; of a negative one it was drawn again for that."""
    events = []
    for region, score in enumerate(regions):
        event = {"region": region, "revision": 0, "score": None, "verdict": None}
        events.append(event | {"role": "draw"})
        verdict = "revise" if score < 0 else "accept"
        events.append(event | {"role": "reflect", "score": abs(score), "verdict": verdict})
        if score < 0:
            events.append(event | {"role": "draw", "revision": 1})
    return {"record_id": name, "status": status, "events": events}


def test_the_most_telling_trace_is_the_one_that_was_liked_least_and_drawn_again():
    rows = [a_row("a", 97.0), a_row("b", -40.0, 97.0), a_row("c", 97.0, -20.0), a_row("d", -20.0)]

    assert most_telling(rows)["record_id"] == "c"
    assert most_telling(rows[:1])["record_id"] == "a"
    assert most_telling([a_row("dead", -1.0, status="dead"), rows[0]])["record_id"] == "a"
    assert most_telling([]) is None
