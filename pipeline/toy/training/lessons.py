"""Training sequences: the real programs run against the teacher, rendered as the engine renders.

A student sees, token for token, the questions that inference will ask. Only answers are learned.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.engine.checkpoints import Janus
from pipeline.engine.rendering import Renderer
from pipeline.plan.packs import load_pack
from pipeline.toy.patches import COLUMNS, ROWS, SIDE, patches
from pipeline.toy.scenes import (
    NUM_WORDINGS,
    Scene,
    Spec,
    prompt_of,
    sample_spec,
    sample_training_scene,
)
from pipeline.toy.teacher import Lesson, Mistakes, Teacher
from pipeline.twig.drive import Backends, Given, Rollout, drive
from pipeline.twig.programs import PROGRAMS, Settings
from pipeline.twig.requests import Canvas, Codes, Request, Text, TextAnswer, Visual, VisualAnswer
from schemas.config import MethodConfig, ModelConfig, PackConfig, Program, ReflectionConfig
from schemas.geometry import Geometry
from schemas.trace import Role

GEOMETRY = Geometry(image_size=SIDE * ROWS, rows=ROWS, columns=COLUMNS, num_codes=len(patches()))
"""Of the toy world's pictures."""

_PROGRAM_SHARES = {
    Program.THINK_WHILE: 0.64,
    Program.PLAIN: 0.08,
    Program.THINK_BEFORE: 0.18,
    Program.THINK_AFTER: 0.10,
}
_MISTAKES = Mistakes(thought=0.25, drawing=0.5)
_KEPT_SHARE = {Role.THINK: 0.3, Role.DRAW: 0.6, Role.REFLECT: 0.5}
_SKIPPED_SHARE = 0.7  # of the rollouts of a single object
_OBJECTS_REGION = 1
_REVERSED_SHARE = 0.6  # of the wordings of several objects
_REVERSED = {  # wordings that say "right of" and "between"
    2: [wording for wording in range(NUM_WORDINGS) if wording % 5 in (1, 3)],
    3: [wording for wording in range(NUM_WORDINGS) if wording % 2 == 0],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Exercise:
    """One training sequence. `ids` are text tokens, then `codes` image tokens."""

    ids: tuple[int, ...]
    codes: Codes  # of a drawing: the tokens after the text
    canvas: Codes | None  # of a question: the picture at its image placeholders
    learned_from: int  # the place in ids, or in codes of a drawing, where the answer begins


def settings_for(program: Program, *, max_revisions: int = 1) -> Settings:
    """The toy's own pack and the paper's method."""
    pack = load_pack("toy")
    method = MethodConfig(
        model=ModelConfig(name="toy", digest="none"),
        pack=PackConfig(name=pack.name, digest=pack.digest),
        program=program,
        reflection=ReflectionConfig(max_revisions=max_revisions),
    )
    return Settings(method=method, pack=pack, geometry=GEOMETRY)


def teach(
    scene: Scene, prompt: str, settings: Settings, rng: np.random.Generator, mistakes: Mistakes
) -> list[Lesson]:
    """Run a program of this prompt against a teacher; its lessons."""
    program = settings.method.program
    num_regions = settings.method.schedule.num_regions if program is Program.THINK_WHILE else 1
    teacher = Teacher(scene, rng, num_regions=num_regions, mistakes=mistakes)
    rollout = Rollout(
        record_id="lesson",
        rollout_index=0,
        run_seed=0,
        program=PROGRAMS[program](prompt, settings),
    )
    backends = Backends({"teacher": teacher}, dict.fromkeys(Role, "teacher"))
    (outcome,) = drive(Given([rollout]), backends, max_live=1)
    assert outcome.error is None
    return teacher.lessons


def is_plain(spec: Spec) -> bool:
    """Whether it has a single object: which colour goes with which shape is then no question."""
    return len(spec.objects) == 1


def sample_wording(rng: np.random.Generator, spec: Spec) -> int:
    """A wording; more often one that names the objects in another order than they stand in."""
    wording = int(rng.integers(NUM_WORDINGS))
    if not spec.has_order or rng.random() >= _REVERSED_SHARE:
        return wording
    return _REVERSED[len(spec.objects)][wording % len(_REVERSED[len(spec.objects)])]


def _kept_share(program: Program, request: Request) -> float:
    """All words about the objects are kept: which colour goes with which shape comes hard."""
    is_of_objects = program is not Program.THINK_WHILE or request.region == _OBJECTS_REGION
    if isinstance(request, Text) and is_of_objects:
        return 1.0
    return _KEPT_SHARE[request.role]


class Scribe:
    """Writes lessons down in the tokens of one checkpoint."""

    def __init__(self, janus: Janus) -> None:
        self._renderer = Renderer(janus)
        self._tokenizer = janus.tokenizer
        self._eos = janus.special.eos

    def exercises(self, rng: np.random.Generator) -> Iterator[Exercise]:
        """Exercises without end, of rollouts that have no held-out combination."""
        programs, shares = list(_PROGRAM_SHARES), list(_PROGRAM_SHARES.values())
        settings = {program: settings_for(program) for program in programs}
        while True:
            program = programs[int(rng.choice(len(programs), p=shares))]
            scene = sample_training_scene(rng)
            spec = sample_spec(rng, scene)
            if is_plain(spec) and rng.random() < _SKIPPED_SHARE:
                continue
            prompt = prompt_of(spec, sample_wording(rng, spec))
            for lesson in teach(scene, prompt, settings[program], rng, _MISTAKES):
                if lesson.is_right and rng.random() < _kept_share(program, lesson.request):
                    yield self.write(lesson)

    def write(self, lesson: Lesson) -> Exercise:
        """The tokens of a question and its answer, as inference will have them."""
        if isinstance(lesson.request, Visual):
            return self._write_drawing(lesson.request, lesson)
        request, answer = lesson.request, lesson.answer
        assert isinstance(request, Text)
        assert isinstance(answer, TextAnswer)
        question = self._renderer.question(request)
        words = self._tokenizer.backend_tokenizer.encode(answer.text, add_special_tokens=False).ids
        canvas = next(
            (shown.codes for shown in request.pictures if isinstance(shown, Canvas)), None
        )
        return Exercise(
            ids=(*question, *words, self._eos),
            codes=(),
            canvas=canvas,
            learned_from=len(question),
        )

    def _write_drawing(self, request: Visual, lesson: Lesson) -> Exercise:
        assert isinstance(lesson.answer, VisualAnswer)
        return Exercise(
            ids=self._renderer.draw_prefix(request).cond,
            codes=request.codes + lesson.answer.codes,
            canvas=None,
            # What stands before is true to the text as well, unless it was planted: learn it too.
            learned_from=0 if lesson.is_canvas_right else len(request.codes),
        )
