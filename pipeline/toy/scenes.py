"""The toy world: scenes in three bands, the prompts and thoughts that say them, their pictures.

A scene is a sky, one to three objects in a row, and a ground. A spec is what a prompt says of one;
what it leaves open is anybody's choice. Nothing here is learned or drawn by chance but the samples,
and those come from the caller's generator.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.pictures import Pixels
from pipeline.toy.patches import COLUMNS, ROWS, Code, code_of, tile
from pipeline.twig.requests import Codes
from schemas.json_values import JsonObject, JsonValue

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross")
SKIES = ("pink", "blue", "orange", "grey", "purple", "green")
SKY_THINGS = ("sun", "moon", "cloud")
GROUNDS = ("grass", "sand", "snow", "soil")
GROUND_THINGS = ("flower", "rock", "mushroom")
GROUND_PLACES = (1, 4, 9)
"""Where small things stand, row by row. Few: guidance always draws a thing at the first place that
it may stand, so that place must be a common sight."""
SLOTS = ("on the left", "in the centre", "on the right")

NUM_BANDS = 3
NUM_WORDINGS = 30
_BAND_ROWS = ROWS // NUM_BANDS
_HELD_OUT_PERCENT = 6  # of pairs, of orders of a pair, and of skies over an object


@dataclass(frozen=True, slots=True)
class SceneObject:
    """What stands in a slot: one of `COLOURS` and one of `SHAPES`."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return with_article(f"{self.colour} {self.shape}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A whole picture. The last two fields are free variation that no words speak of."""

    objects: tuple[SceneObject, ...]  # one to three, all different, from left to right
    slot: int  # of a single object: 0, 1 or 2; where there are more, they fill the row
    sky: str
    sky_thing: str  # empty: nothing there
    ground: str
    ground_thing: str  # empty: nothing there
    sky_slot: int = 0  # 0, 1 or 2
    ground_place: int = 0  # 0 to 11, row by row

    @property
    def slots(self) -> tuple[int, ...]:
        """Where the objects stand, from left to right."""
        return slots_of(len(self.objects), self.slot)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a prompt says of a scene. None is not said; an empty thing is said to be absent."""

    objects: tuple[SceneObject, ...]
    has_order: bool = False  # whether it says which object is left of which
    slot: int | None = None  # of a single object
    sky: str | None = None
    sky_thing: str | None = None
    ground: str | None = None
    ground_thing: str | None = None

    def to_json(self) -> JsonObject:
        """As metadata of a record."""
        return asdict(self) | {"objects": [asdict(named) for named in self.objects]}

    @classmethod
    def from_json(cls, table: JsonValue) -> "Spec":
        """The inverse of `to_json`.

        Raises TypeError for what is no object and for fields that it does not know, and KeyError
        where `objects` is missing.
        """
        if not isinstance(table, dict):
            raise TypeError(f"a spec is a JSON object, and not {table!r}")
        fields: dict[str, Any] = table
        objects = tuple(SceneObject(**named) for named in fields["objects"])
        return cls(**fields | {"objects": objects})


def spec_of(scene: Scene) -> Spec:
    """Everything that there is to say of a scene."""
    return Spec(
        objects=scene.objects,
        has_order=len(scene.objects) > 1,
        slot=scene.slot if len(scene.objects) == 1 else None,
        sky=scene.sky,
        sky_thing=scene.sky_thing,
        ground=scene.ground,
        ground_thing=scene.ground_thing,
    )


def slots_of(num_objects: int, slot: int) -> tuple[int, ...]:
    """The slots, from 0 at the left, that so many objects stand in; `slot` is of a single one."""
    return {1: (slot,), 2: (0, 2), 3: (0, 1, 2)}[num_objects]


# Words


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def thought_of(scene: Scene, band: int) -> str:
    """One literal sentence that says all of a band: 0 the sky, 1 the objects, 2 the ground."""
    if band == 0:
        return f"{_sky_words(scene.sky, scene.sky_thing)}."
    if band == 2:
        return f"{_ground_words(scene.ground, scene.ground_thing)}."
    objects = scene.objects
    if len(objects) == 1:
        return f"{objects[0]} {SLOTS[scene.slot]}."
    if len(objects) == 2:
        return f"{objects[0]} left of {objects[1]}."
    return f"{objects[0]}, {objects[1]}, {objects[2]}."


def prompt_of(spec: Spec, wording: int) -> str:
    """A prompt that says the spec and no more, in one of `NUM_WORDINGS` wordings."""
    forms = _object_forms(spec)
    objects = forms[wording % len(forms)]
    sky = _sky_words(spec.sky, spec.sky_thing) if spec.sky else ""
    ground = _ground_words(spec.ground, spec.ground_thing) if spec.ground else ""
    below, above = f"on {ground}" if ground else "", f"under {sky}" if sky else ""
    match wording % 6:
        case 0:
            return _joined(f"{objects} {above}".strip(), below)
        case 1:
            return _joined(above, objects, f"{ground} below" if ground else "")
        case 2:
            return _joined(f"a picture of {objects}", f"{sky} above" if sky else "", ground)
        case 3:
            return _joined(sky, objects, ground)
        case 4:
            return _joined(f"{objects} {below}".strip(), f"with {sky}" if sky else "")
        case _:
            return _joined(below, f"there is {objects}", above)


def _object_forms(spec: Spec) -> tuple[str, ...]:
    """The objects of a prompt in words, in every way there is to say them."""
    if len(spec.objects) == 1:
        where = "" if spec.slot is None else f" {SLOTS[spec.slot]}"
        return (f"{spec.objects[0]}{where}",)
    if len(spec.objects) == 2:
        a, b = spec.objects
        if not spec.has_order:
            return f"{a} and {b}", f"{a} next to {b}"
        return (
            f"{a} left of {b}",
            f"{b} right of {a}",
            f"{a} to the left of {b}",
            f"{b} to the right of {a}",
            f"{a} on the left and {b} on the right",
        )
    a, b, c = spec.objects
    if not spec.has_order:
        return f"{a}, {b} and {c}", f"{a} with {b} and {c}"
    return f"{b} between {a} and {c}", f"from left to right {a}, {b} and {c}"


def _sky_words(sky: str, sky_thing: str | None) -> str:
    return with_article(f"{sky} sky") + (f" with {with_article(sky_thing)}" if sky_thing else "")


def _ground_words(ground: str, ground_thing: str | None) -> str:
    return ground + (f" with {with_article(ground_thing)}" if ground_thing else "")


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


_LITTLE_WORDS = {
    *("a", "an", "the", "is", "there", "picture", "from", "to", "of", "with", "and", "next"),
    *("above", "below", "under", "on", "in", "between", "left", "right", "centre", "sky"),
}
_WORDS = _LITTLE_WORDS.union(COLOURS, SHAPES, SKIES, SKY_THINGS, GROUNDS, GROUND_THINGS)


def words_beyond(prompt: str) -> list[str]:
    """The words of a prompt that no prompt of this world has, in order."""
    return [word for word in re.findall(r"[^\W_]+", prompt) if word.lower() not in _WORDS]


# Pictures


def codes_of(scene: Scene) -> Codes:
    """The image tokens of a scene, row by row."""
    grid = np.empty((ROWS, COLUMNS), dtype=np.int64)
    for row in range(ROWS):
        grid[row] = [code_of(_patch_at(scene, row, column)) for column in range(COLUMNS)]
    return tuple(int(code) for code in grid.flat)


def render(scene: Scene) -> Pixels:
    """The picture of a scene, uint8 [48, 48, 3]."""
    return tile(codes_of(scene))


def _patch_at(scene: Scene, row: int, column: int) -> Code:
    """What stands at a token: a key of the codebook."""
    band, inner = divmod(row, _BAND_ROWS)
    slot, side = divmod(column, 2)
    corner = 2 * inner + side  # of what is 2 x 2 tokens large
    if band == 0:
        is_thing = scene.sky_thing and scene.sky_slot == slot
        return ("sky", scene.sky, scene.sky_thing, corner) if is_thing else ("sky", scene.sky)
    if band == 1:
        if slot not in scene.slots:
            return ("wall",)
        standing = scene.objects[scene.slots.index(slot)]
        return ("object", standing.colour, standing.shape, corner)
    if scene.ground_thing and scene.ground_place == inner * COLUMNS + column:
        return ("ground", scene.ground, scene.ground_thing)
    return ("ground", scene.ground, (row + column) % 2)


# Samples


def is_held_out(spec: Spec) -> bool:
    """Whether a spec has a pair of objects, an order or a sky over an object kept from training."""
    return any(_bucket(key) < _HELD_OUT_PERCENT for key in _combinations(spec))


def _combinations(spec: Spec) -> Iterator[str]:
    names = [f"{named.colour} {named.shape}" for named in spec.objects]
    for a, b in combinations(names, 2):
        yield "pair: " + " + ".join(sorted((a, b)))
        if spec.has_order:
            yield f"order: {a} < {b}"
    if spec.sky:
        yield from (f"sky: {spec.sky} over {name}" for name in names)


def _bucket(key: str) -> int:
    """0 to 99, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 100


def sample_scene(rng: np.random.Generator) -> Scene:
    """Any scene at all, of either split."""
    num_objects = int(rng.choice([1, 2, 3], p=[0.25, 0.45, 0.3]))
    kinds = rng.choice(len(COLOURS) * len(SHAPES), size=num_objects, replace=False)
    return Scene(
        objects=tuple(
            SceneObject(COLOURS[kind // len(SHAPES)], SHAPES[kind % len(SHAPES)]) for kind in kinds
        ),
        slot=int(rng.integers(len(SLOTS))),
        sky=_one_of(rng, SKIES),
        sky_thing=_one_of(rng, SKY_THINGS) if rng.random() < 0.4 else "",
        ground=_one_of(rng, GROUNDS),
        ground_thing=_one_of(rng, GROUND_THINGS) if rng.random() < 0.4 else "",
        sky_slot=int(rng.integers(3)),
        ground_place=GROUND_PLACES[int(rng.integers(len(GROUND_PLACES)))],
    )


def sample_training_scene(rng: np.random.Generator) -> Scene:
    """A scene without any held-out combination."""
    while is_held_out(spec_of(scene := sample_scene(rng))):
        pass
    return scene


def sample_spec(rng: np.random.Generator, scene: Scene) -> Spec:
    """What some prompt might say of a scene: the objects, and a random part of the rest."""
    says_order, says_sky, says_ground = rng.random(3) < 0.75
    several = len(scene.objects) > 1
    return Spec(
        objects=scene.objects,
        has_order=bool(several and says_order),
        slot=scene.slot if not several and says_order else None,
        sky=scene.sky if says_sky else None,
        sky_thing=scene.sky_thing or None if says_sky else None,
        ground=scene.ground if says_ground else None,
        ground_thing=scene.ground_thing or None if says_ground else None,
    )


def sample_held_out_spec(rng: np.random.Generator) -> Spec:
    """What some prompt might say, with at least one held-out combination in what it says."""
    while not is_held_out(spec := sample_spec(rng, sample_scene(rng))):
        pass
    return spec


def _one_of(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]
