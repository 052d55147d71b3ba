"""Options of a run's actors, as the settings that they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli.options import execution_flags
from pipeline.plan.configs import with_settings
from schemas.errors import InputError


def test_options_that_are_not_given_set_nothing():
    assert execution_flags(None) == []
    assert execution_flags(8, 2) == ["execution.num_actors=8", "execution.min_actors=2"]


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii"), min_size=1),
        st.one_of(st.integers(0, 10**6), st.floats(0.001, 1e6)),
        max_size=4,
    )
)
def test_any_resources_come_through_as_they_were_typed(resources: dict[str, float]):
    import json

    flags = execution_flags(None, resources=json.dumps(resources))
    assert with_settings({}, flags) == {"execution": {"resources": resources}}


@pytest.mark.parametrize(
    "typed", ["drawer", "[1]", "{", '{"drawer": "1"}', '{"drawer": true}', '{"drawer": null}', ""]
)
def test_what_is_no_amounts_by_name_is_refused_with_an_example(typed: str):
    with pytest.raises(InputError, match="--resources"):
        execution_flags(None, resources=typed)
