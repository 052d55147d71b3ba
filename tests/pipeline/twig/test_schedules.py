from collections.abc import Sequence
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.twig.schedules import bands_by_ratio, equal_bands, read_schedule
from schemas.errors import InputError
from schemas.geometry import Geometry
from schemas.trace import Schedule

RATIOS = st.lists(st.floats(min_value=0.001, max_value=1000), min_size=1, max_size=12)
WHOLE_RATIOS = st.lists(st.integers(1, 100), min_size=1, max_size=12)


def picture(*, rows: int, columns: int = 3) -> Geometry:
    return Geometry(image_size=16 * rows, rows=rows, columns=columns, num_codes=16)


def heights(schedule: Schedule, columns: int = 3) -> list[int]:
    """How many rows each band has, after a check that they are whole and follow on each other."""
    regions = schedule.regions
    assert [region.index for region in regions] == list(range(len(regions)))
    assert regions[0].start == 0
    assert all(above.stop == below.start for above, below in pairwise(regions))
    assert all(region.num_tokens % columns == 0 for region in regions)
    return [region.num_tokens // columns for region in regions]


@st.composite
def canvases_with_room(draw: st.DrawFn) -> tuple[Geometry, int]:
    """A picture and a number of regions that fit it."""
    rows, columns = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    return picture(rows=rows, columns=columns), draw(st.integers(1, rows))


# Equal bands


@given(canvases_with_room())
def test_equal_bands_cover_every_row_once_and_differ_by_at_most_one(wanted: tuple[Geometry, int]):
    geometry, num_regions = wanted

    bands = heights(equal_bands(geometry, num_regions), geometry.columns)

    assert len(bands) == num_regions
    assert sum(bands) == geometry.rows
    assert 1 <= min(bands) <= max(bands) <= min(bands) + 1


def test_three_equal_bands_of_the_published_models_have_eight_rows_each():
    schedule = equal_bands(Geometry(image_size=384, rows=24, columns=24, num_codes=16384), 3)

    assert [(band.start, band.stop) for band in schedule.regions] == [
        (0, 192),
        (192, 384),
        (384, 576),
    ]
    assert schedule.source == "equal"


# Bands by ratio


@given(RATIOS, st.integers(0, 52))
def test_bands_by_ratio_cover_every_row_once_and_have_one_at_least(
    ratios: list[float], spare_rows: int
):
    rows = len(ratios) + spare_rows

    bands = heights(bands_by_ratio(picture(rows=rows), ratios))

    assert len(bands) == len(ratios)
    assert sum(bands) == rows
    assert min(bands) >= 1


@given(WHOLE_RATIOS, st.integers(0, 52))
def test_a_larger_ratio_never_gets_a_lower_band(ratios: list[int], spare_rows: int):
    bands = heights(bands_by_ratio(picture(rows=len(ratios) + spare_rows), ratios))

    for low, high in permutations(range(len(ratios)), 2):
        if ratios[low] < ratios[high]:
            assert bands[low] <= bands[high]


@given(RATIOS, st.integers(0, 52), st.integers(-8, 8))
def test_doubling_or_halving_all_ratios_changes_nothing(
    ratios: list[float], spare_rows: int, power: int
):
    geometry = picture(rows=len(ratios) + spare_rows)

    scaled = bands_by_ratio(geometry, [ratio * 2.0**power for ratio in ratios])

    assert scaled == bands_by_ratio(geometry, ratios)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1], [24]),
        ([1, 1, 1], [8, 8, 8]),
        ([2, 1, 1], [12, 6, 6]),
        ([30, 40, 30], [7, 10, 7]),
        ([0.25, 0.25, 0.5], [6, 6, 12]),
        ([1, 2, 1, 2], [4, 8, 4, 8]),
        ([1000, 1], [23, 1]),
        ([1] * 24, [1] * 24),
    ],
)
def test_bands_of_24_rows_follow_their_ratios(ratios: Sequence[float], expected: list[int]):
    schedule = bands_by_ratio(picture(rows=24), ratios)

    assert heights(schedule) == expected
    assert schedule.source == "ratios"


# Bands that a model proposes


@pytest.mark.parametrize(
    "answer",
    [
        "BANDS: 50 25 25",
        "bands: 50 25 25",
        "**BANDS:** 50, 25, 25",
        "I would say\nBANDS: 2/1/1\nso that the boat is whole.",
        "BANDS: 0.5 0.25 0.25",
        "BANDS: [50%, 25%, 25%]",
    ],
)
def test_a_usable_proposal_is_followed(answer: str):
    schedule = read_schedule(answer, picture(rows=24), 3)

    assert heights(schedule) == [12, 6, 6]
    assert schedule.source == "adaptive"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Three bands of one size.",
        "50 25 25",
        "BANDS:",
        "BANDS: <numbers, separated by spaces>",
        "BANDS: 50 50",
        "BANDS: 25 25 25 25",
        "BANDS: 100 0 0",
        "BANDS: 5e1 25 25",
        "BANDS: 50a 25 25",
        "BANDS: fifty 25 25",
    ],
)
def test_any_other_proposal_falls_back_to_equal_bands_and_says_so(answer: str):
    geometry = picture(rows=24)

    schedule = read_schedule(answer, geometry, 3)

    assert schedule.regions == equal_bands(geometry, 3).regions
    assert schedule.source == "fallback"


@given(st.text(), canvases_with_room())
def test_whatever_a_model_proposes_covers_the_canvas(answer: str, wanted: tuple[Geometry, int]):
    geometry, num_regions = wanted

    for proposal in (answer, f"BANDS: {answer}"):
        bands = heights(read_schedule(proposal, geometry, num_regions), geometry.columns)
        assert (len(bands), sum(bands)) == (num_regions, geometry.rows)


@given(WHOLE_RATIOS, st.integers(0, 52))
def test_a_proposal_in_the_asked_form_means_its_ratios(ratios: list[int], spare_rows: int):
    geometry = picture(rows=len(ratios) + spare_rows)

    proposed = read_schedule(f"BANDS: {' '.join(map(str, ratios))}", geometry, len(ratios))

    assert proposed.regions == bands_by_ratio(geometry, ratios).regions
    assert proposed.source == "adaptive"


# What is refused


def test_more_regions_than_rows_are_refused_with_what_fits():
    geometry = picture(rows=4)

    with pytest.raises(InputError, match="5 regions do not fit a canvas of 4 token rows"):
        equal_bands(geometry, 5)
    with pytest.raises(InputError, match="5 regions do not fit a canvas of 4 token rows"):
        bands_by_ratio(geometry, [1] * 5)
    with pytest.raises(InputError, match="5 regions do not fit a canvas of 4 token rows"):
        read_schedule("no idea", geometry, 5)
