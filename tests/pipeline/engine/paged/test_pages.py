"""Pages of a cache: who owns what, and when it is free."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.engine.paged.pages import PAGE_TOKENS, SCRATCH_PAGE, Pages, num_pages_for


class PagesAtWork(RuleBasedStateMachine):
    """Owners take, share and give back, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: list[list[int]] = []  # the pages of each

    @initialize(num_pages=st.integers(2, 12))
    def open(self, num_pages: int) -> None:
        self.pages = Pages(num_pages)
        self.all = set(range(num_pages)) - {SCRATCH_PAGE}

    @rule(num_pages=st.integers(0, 6))
    def take(self, num_pages: int) -> None:
        if not self.pages.can_take(num_pages):
            assert num_pages > self.pages.num_free
            return
        taken = self.pages.take(num_pages)
        assert len(set(taken)) == num_pages
        assert not set(taken) & self.owned()
        self.owners.append(taken)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        pages = data.draw(st.sampled_from(self.owners))
        part = pages[: data.draw(st.integers(0, len(pages)))]
        self.pages.share(part)
        self.owners.append(part)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.owners) - 1))
        self.pages.give_back(self.owners.pop(index))

    @invariant()
    def every_page_is_free_or_owned(self) -> None:
        assert self.pages.capacity == len(self.all)
        assert self.owned() <= self.all  # so scratch is never handed out
        assert self.pages.num_free == len(self.all - self.owned())

    def owned(self) -> set[int]:
        return {page for pages in self.owners for page in pages}


TestPagesAtWork = PagesAtWork.TestCase
TestPagesAtWork.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def test_all_pages_but_scratch_can_be_taken():
    pages = Pages(5)

    assert sorted(pages.take(4)) == [1, 2, 3, 4]
    assert not pages.can_take(1)


def test_a_shared_page_is_free_after_its_last_owner():
    pages = Pages(3)
    taken = pages.take(2)
    pages.share(taken[:1])

    pages.give_back(taken)
    assert pages.num_free == 1
    assert pages.take(1) == taken[1:]

    pages.give_back(taken[:1])
    assert pages.num_free == 1


@pytest.mark.parametrize("num_pages", [0, 1])
def test_a_cache_of_scratch_alone_is_refused(num_pages: int):
    with pytest.raises(ValueError, match="2 is the least"):
        Pages(num_pages)


def test_taking_more_than_there_is_or_giving_back_twice_is_our_bug():
    pages = Pages(3)
    taken = pages.take(1)

    with pytest.raises(AssertionError, match="2 pages of 1"):
        pages.take(2)
    pages.give_back(taken)
    with pytest.raises(AssertionError, match="is free already"):
        pages.give_back(taken)
    with pytest.raises(AssertionError, match="is free"):
        pages.share(taken)


def test_tokens_fill_pages_one_after_the_other():
    pages_of = [num_pages_for(num_tokens) for num_tokens in range(2 * PAGE_TOKENS + 1)]

    assert Counter(pages_of) == {0: 1, 1: PAGE_TOKENS, 2: PAGE_TOKENS}
    assert pages_of == sorted(pages_of)
