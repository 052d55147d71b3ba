"""The thinking without the drawing: stepwise thoughts for a picture that others are to draw."""

from pipeline.twig.programs import Draft, Planned, Running, Settings
from pipeline.twig.schedules import equal_bands


def think_stepwise(prompt: str, settings: Settings) -> Running:
    """A thought for each region, from the top down, each with those before it in sight.

    No picture is in sight: there is none. How tall a region is plays no part. Returns no tokens.
    """
    num_regions = settings.method.schedule.num_regions
    schedule = equal_bands(settings.geometry, num_regions)
    yield Planned(schedule)
    draft = Draft(prompt, schedule, settings)
    for region in schedule.regions:
        thought = yield from draft.think(region)
        draft.keep(thought, ())
    return draft.codes
