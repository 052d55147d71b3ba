"""The teacher: a backend that knows the scene, and answers as the toy Janus is to learn to.

It thinks the right thoughts, draws the true tokens, and judges exactly; and it makes mistakes at
given rates, so that there is something to judge. The real programs run against it, so what a
student is shown are the very questions that it will be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.toy.patches import COLUMNS, code_of, patches
from pipeline.toy.scenes import (
    COLOURS,
    GROUND_THINGS,
    GROUNDS,
    NUM_BANDS,
    SHAPES,
    SKIES,
    SKY_THINGS,
    Scene,
    SceneObject,
    codes_of,
    is_held_out,
    sample_training_scene,
    spec_of,
    thought_of,
)
from pipeline.toy.scorer import mark
from pipeline.toy.views import view_of_codes, words_of
from pipeline.twig.requests import (
    Answer,
    Canvas,
    Codes,
    Request,
    RequestId,
    Text,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.errors import RolloutError
from schemas.trace import Finish, Role

PERFECT = 97
_BEST_OF_THE_WRONG = 80  # far below the 90 that passes
_BAND_TOKENS = 2 * COLUMNS


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistakes:
    """How often the teacher errs on purpose, from 0 to 1."""

    thought: float = 0.0
    drawing: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """A request and the answer to it."""

    request: Request
    answer: Answer
    is_right: bool  # whether a student should answer so; planted mistakes are not to be learned
    is_canvas_right: bool = True  # of a drawing: whether the tokens before it are so too


class Teacher:
    """Answers the requests of one rollout. `lessons` are those answered so far."""

    def __init__(
        self, scene: Scene, rng: np.random.Generator, *, num_regions: int, mistakes: Mistakes
    ) -> None:
        assert num_regions in (1, NUM_BANDS)
        self.lessons: list[Lesson] = []
        self._scene = scene
        self._rng = rng
        self._bands_of = [range(NUM_BANDS)] if num_regions == 1 else [[0], [1], [2]]
        self._mistakes = mistakes
        self._thought: Scene = scene  # what the last thought says
        self._is_canvas_right = True
        self._is_last_right = True
        self._last_region = 0
        self._queue: list[tuple[RequestId, Request]] = []

    def submit(self, request_id: RequestId, request: Request) -> None:
        self._queue.append((request_id, request))

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        queue, self._queue = self._queue, []
        return [(request_id, self._answer(request)) for request_id, request in queue]

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, Visual):
            lesson = self._draw(request)
        else:
            assert isinstance(request, Text)
            lesson = self._think(request) if request.role is Role.THINK else self._judge(request)
        self.lessons.append(lesson)
        return lesson.answer

    def _think(self, request: Text) -> Lesson:
        bands = self._bands_of[request.region]
        is_right = self._rng.random() >= self._mistakes.thought
        self._thought = self._scene if is_right else mistaken(self._rng, self._scene, bands)
        words = " ".join(thought_of(self._thought, band) for band in bands)
        return Lesson(request=request, answer=_say(words), is_right=is_right)

    def _draw(self, request: Visual) -> Lesson:
        bands = self._bands_of[request.region]
        if request.revision:
            self._thought = self._scene  # the critique said what is right
        elif request.region != self._last_region:
            self._is_canvas_right &= self._is_last_right
        codes = _part(codes_of(self._thought), bands)
        is_right = self._rng.random() >= self._mistakes.drawing
        if not is_right:
            codes = misdrawn(self._rng, self._thought, bands)
        self._last_region, self._is_last_right = request.region, is_right
        answer = VisualAnswer(prefix_ids=(), codes=codes)
        right_before = self._is_canvas_right
        return Lesson(
            request=request, answer=answer, is_right=is_right, is_canvas_right=right_before
        )

    def _judge(self, request: Text) -> Lesson:
        (canvas,) = request.pictures
        assert isinstance(canvas, Canvas)
        answer = critique(self._scene, self._bands_of[request.region], canvas.codes)
        self._thought = self._scene
        return Lesson(request=request, answer=_say(answer), is_right=True)


def critique(scene: Scene, bands: Sequence[int], codes: Codes) -> str:
    """What is seen in these bands of a canvas, how good that is, and what there should be."""
    padded = [*codes, *[0] * (NUM_BANDS * _BAND_TOKENS - len(codes))]
    view = view_of_codes(padded)
    marks = mark(view, spec_of(scene))
    asked = [right for band in bands for right in marks.bands[band].values() if right is not None]
    score = PERFECT
    if not all(asked):
        score = round(_BEST_OF_THE_WRONG * sum(asked) / len(asked))
    seen = " ".join(words_of(view, band) for band in bands)
    better = " ".join(thought_of(scene, band) for band in bands)
    return f"SEES: {seen} SCORE: {score} IMPROVED_DESCRIPTION: {better}"


def mistaken(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Scene:
    """A scene that differs in one of these bands. From a training scene it is one as well."""
    may_be_held_out = is_held_out(spec_of(scene))
    while True:
        other = _with_mistake(rng, scene, int(rng.choice(np.array(bands))))
        if other != scene and (may_be_held_out or not is_held_out(spec_of(other))):
            return other


def misdrawn(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """The tokens of these bands with something amiss: another thing, one too many, a broken one."""
    while True:
        drawn = _MISDRAW[int(rng.integers(len(_MISDRAW)))](rng, scene, bands)
        view = view_of_codes(drawn)
        if any(words_of(view, band) != thought_of(scene, band) for band in bands):
            return _part(drawn, bands)


def _with_mistake(rng: np.random.Generator, scene: Scene, band: int) -> Scene:
    if band == 0:
        if rng.random() < 0.5:
            return replace(scene, sky=_other(rng, SKIES))
        return replace(scene, sky_thing=_other(rng, ("", *SKY_THINGS)))
    if band == 2:
        if rng.random() < 0.5:
            return replace(scene, ground=_other(rng, GROUNDS))
        return replace(scene, ground_thing=_other(rng, ("", *GROUND_THINGS)))
    objects = list(scene.objects)
    index = int(rng.integers(len(objects)))
    match int(rng.integers(5)):
        case 0 | 1:
            objects[index] = replace(objects[index], colour=_other(rng, COLOURS))
        case 2 | 3:
            objects[index] = replace(objects[index], shape=_other(rng, SHAPES))
        case _ if len(objects) == 1:
            return replace(scene, slot=int(rng.integers(3)))
        case _:
            other = int(rng.integers(len(objects)))
            objects[index], objects[other] = objects[other], objects[index]
    if len(set(objects)) < len(objects):
        return scene  # two alike: no scene of ours; try again
    return replace(scene, objects=tuple(objects))


def _other(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _draw_another(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    return codes_of(mistaken(rng, scene, bands))


def _draw_too_few(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """One object is missing. Where the objects are not drawn, another mistake."""
    if 1 not in bands:
        return _draw_another(rng, scene, bands)
    return _with_block(codes_of(scene), int(rng.choice(np.array(scene.slots))), None)


def _draw_too_many(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """One object too many, where there is room for one."""
    free = [slot for slot in range(3) if slot not in scene.slots]
    if 1 not in bands or not free:
        return _draw_another(rng, scene, bands)
    may_be_held_out = is_held_out(spec_of(scene))
    while True:
        extra = SceneObject(_other(rng, COLOURS), _other(rng, SHAPES))
        together = replace(spec_of(scene), objects=(*scene.objects, extra), has_order=False)
        if may_be_held_out or not is_held_out(together):
            return _with_block(codes_of(scene), int(rng.choice(np.array(free))), extra)


def _draw_mixed(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """Some tokens are those of another picture of the kind, as when sampling wavers."""
    other = codes_of(mistaken(rng, scene, bands))
    takes_other = rng.random(len(other)) < rng.uniform(0.15, 0.6)
    pairs = zip(codes_of(scene), other, takes_other, strict=True)
    return tuple(b if takes else a for a, b, takes in pairs)


def _draw_broken(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """One to three tokens are any at all."""
    codes = list(codes_of(scene))
    for _ in range(int(rng.integers(1, 4))):
        band = int(rng.choice(np.array(bands)))
        codes[band * _BAND_TOKENS + int(rng.integers(_BAND_TOKENS))] = int(
            rng.integers(1, len(patches()))
        )
    return tuple(codes)


def _draw_twice(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """The thing on the ground again, or in the sky: what guided sampling gets wrong most often."""
    spare = replace(
        scene,
        sky_slot=(scene.sky_slot + int(rng.integers(1, 3))) % 3,
        ground_place=(scene.ground_place + int(rng.integers(1, _BAND_TOKENS))) % _BAND_TOKENS,
    )
    plain = codes_of(replace(scene, sky_thing="", ground_thing=""))
    if not (2 in bands and scene.ground_thing) and not (0 in bands and scene.sky_thing):
        return _draw_another(rng, scene, bands)
    triples = zip(codes_of(scene), codes_of(spare), plain, strict=True)
    return tuple(again if again != bare else once for once, again, bare in triples)


def _draw_foreign(rng: np.random.Generator, scene: Scene, bands: Sequence[int]) -> Codes:
    """Something else altogether. A critic that believes what it is told is wrong in every word."""
    return codes_of(sample_training_scene(rng))


_MISDRAW = (
    _draw_another,
    _draw_another,
    _draw_another,
    _draw_too_few,
    _draw_too_many,
    _draw_mixed,
    _draw_broken,
    *[_draw_twice] * 4,
    *[_draw_foreign] * 5,
)


def _with_block(codes: Codes, slot: int, shown: SceneObject | None) -> Codes:
    """The tokens with another object, or the bare wall, in a slot of the middle band."""
    drawn = list(codes)
    for corner in range(4):
        row, side = divmod(corner, 2)
        token = _BAND_TOKENS + row * COLUMNS + 2 * slot + side
        patch = ("object", shown.colour, shown.shape, corner) if shown else ("wall",)
        drawn[token] = code_of(patch)
    return tuple(drawn)


def _part(codes: Codes, bands: Sequence[int]) -> Codes:
    """The tokens of some bands that follow each other."""
    return codes[bands[0] * _BAND_TOKENS : (bands[-1] + 1) * _BAND_TOKENS]


def _say(words: str) -> TextAnswer:
    return TextAnswer(prefix_ids=(), text=f" {words}", token_ids=(), finish=Finish.STOP)
