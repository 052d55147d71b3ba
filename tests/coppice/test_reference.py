"""docs/python.md says what the docstrings say."""

from tests.coppice.reference import PAGE, page


def test_the_page_is_of_these_docstrings():
    assert PAGE.read_text() == page(), "write it anew: python -m tests.coppice.reference"
