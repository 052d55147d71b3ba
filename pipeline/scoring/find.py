"""Where scorers are found: bundled ones by name, others at `module:object`.

Code of users is nearly right at best. Whatever is wrong with a scorer's class is found here, before
any work, and said in a sentence.
"""

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.scoring.scorers import SUBJECTS, Scorer, id_of, settings_of
from pipeline.scoring.settings import (
    ScorerSettings,
    parse_request,
    settings_from_signature,
    validated_settings,
)
from schemas.errors import CoppiceError, InputError
from schemas.json_values import JsonMapping
from schemas.scores import COLUMN_TYPES, KEY_COLUMNS

SCORERS: Mapping[str, str] = {
    "toy": "pipeline.toy.scorer:ToyScorer",
    "thoughts": "pipeline.scoring.text_checks:ThoughtChecks",
    "critiques": "pipeline.scoring.text_checks:CritiqueChecks",
    "own_critic": "pipeline.scoring.own_critic:OwnCritic",
    "tokens": "pipeline.scoring.picture_checks:TokenChecks",
    "phash": "pipeline.scoring.picture_checks:PerceptualHash",
    "prompt_filter": "pipeline.scoring.safety:PromptFilter",
    "picture_filter": "pipeline.scoring.safety:PictureFilter",
    "artefacts": "pipeline.scoring.artefacts:ArtefactChecks",
    "hps": "pipeline.scoring.judges.preference:Hps",
    "pickscore": "pipeline.scoring.judges.preference:PickScore",
    "clipscore": "pipeline.scoring.judges.preference:ClipScore",
    "detector": "pipeline.scoring.judges.grounding:Grounding",
    "git_vqa": "pipeline.scoring.judges.visual_questions:GitVqa",
    "blip_vqa": "pipeline.scoring.judges.visual_questions:BlipVqaJudge",
    "layout": "pipeline.scoring.judges.layouts:Layout",
    "geneval": "pipeline.scoring.judges.geneval:GenEvalNative",
    "soft_geneval": "pipeline.scoring.judges.geneval:SoftGenEval",
    "lmm_yes": "pipeline.scoring.judges.vision_language:VqaJudge",
    "rubric": "pipeline.scoring.judges.remote.rubric:Rubric",
    "pairwise": "pipeline.scoring.judges.remote.pairwise:Pairwise",
    "soft_tifa": "pipeline.scoring.judges.remote.soft_tifa:SoftTifa",
}
"""The scorers that are bundled, each at its `module:object`. Any other one is named so."""

_BEHIND_ENDPOINTS = {"lmm_yes": "pipeline.scoring.judges.remote.yes:RemoteYes"}
"""Where those are that can be asked of an endpoint, too: with the setting `endpoint`."""

_TAKEN = frozenset({"trace", "event", "judge"})
"""What columns of recipes begin with that are no scorer's (docs/curate.md)."""

_KEPT_AS = "settings"
_NEEDED = ("name", "version", "subjects", "needs_pictures", "columns", "score")


def find_scorer(
    name: str, settings: JsonMapping | None = None, *, is_pinned: bool = False
) -> Scorer:
    """The scorer of a bundled name, with or without its version, or at `module:object`.

    The name may have settings in brackets, `hps[dtype=float32]`, which come before the `settings`.
    Modules are looked for in the working directory, too. Weights are not loaded. Settings that
    another process has pinned are taken as they are. Raises InputError
    for a name or version that is not there, for settings that it does not take, and for what is no
    scorer.
    """
    request = parse_request(name)
    bare, _, version = request.name.partition("@")
    if ":" not in request.name and bare not in SCORERS:
        near = difflib.get_close_matches(bare, SCORERS, n=1)
        raise InputError(
            f"there is no scorer {bare!r}{f' (did you mean {near[0]!r}?)' if near else ''}; "
            f"known: {', '.join(sorted(SCORERS))}; one of your own is given as module:object"
        )
    told = {**(settings or {}), **request.settings}
    paths = {**SCORERS, **(_BEHIND_ENDPOINTS if "endpoint" in told else {})}
    scorer = _load(paths.get(bare, request.name), told, is_pinned)
    if bare not in SCORERS:
        _check_name_is_free(scorer.name, request.name)
    if bare in SCORERS and version not in ("", scorer.version, id_of(scorer).version):
        raise InputError(
            f"{bare} is at version {id_of(scorer).version} here, and not at {version}; "
            f"score with {bare}@{scorer.version}, or install the coppice that had {bare}@{version}"
        )
    return scorer


def bundled_version(name: str) -> str:
    """The version of a bundled scorer here, whatever its settings."""
    module, _, attribute = SCORERS[name].partition(":")
    version: str = getattr(importlib.import_module(module), attribute).version
    return version


def find_in(folder: str) -> None:
    """Look for modules in this folder, too, after all other places."""
    if folder not in sys.path and Path(folder).is_dir():
        sys.path.append(folder)


def describe_failure(error: BaseException) -> str:
    """What went wrong in a scorer's code, and where: `KeyError: 'x' (my_scorer.py line 12)`."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ")  # the machinery of imports
    ]
    where = f" ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error!s:.300}{where}"


def _load(path: str, settings: JsonMapping, is_pinned: bool) -> Scorer:
    """The scorer at `module:object`, made from it where that is a class."""
    find_in(os.getcwd())
    module, _, attribute = path.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the scorer {path} cannot be loaded: {error}; modules are looked for in the working "
            "directory, in PYTHONPATH and among what is installed"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module of a user's does
        raise InputError(
            f"the scorer {path} cannot be loaded: {describe_failure(error)}"
        ) from error
    if isinstance(loaded, type):
        scorer = _made(loaded, path, settings, is_pinned)
    else:
        if settings:
            raise InputError(f"{path} is an object and no class, so it takes no settings")
        scorer = loaded
    _check(scorer, path)
    return scorer


def _made(kind: type, path: str, settings: JsonMapping, is_pinned: bool) -> Scorer:
    """An object of the class, with these settings and its defaults."""
    if not hasattr(kind, "score"):
        raise _no_scorer(path, "it lacks score")
    own: type[ScorerSettings] | None = getattr(kind, "Settings", None)
    if own is not None and not hasattr(own, "pinned"):
        raise _no_scorer(path, "its Settings is no ScorerSettings, which coppice has")
    wanted = settings_from_signature(kind, path) if own is None else own
    if not wanted.model_fields:
        if settings:
            raise InputError(
                f"the scorer {path} has no settings, and was given {', '.join(settings)}"
            )
        return _called(kind, path)
    checked = validated_settings(wanted, settings, scorer=path)
    checked = checked if is_pinned else checked.pinned()
    if own is not None:
        scorer = _called(kind, path, checked)
    else:
        given = {name: getattr(checked, name) for name in wanted.model_fields}
        scorer = _called(kind, path, **given)
    if settings_of(scorer) is None:
        try:
            setattr(scorer, _KEPT_AS, checked)
        except AttributeError as error:
            raise _no_scorer(path, "it does not keep its settings, as `settings`") from error
    return scorer


def _called(kind: type, path: str, *arguments: ScorerSettings, **settings: object) -> Scorer:
    try:
        scorer: Scorer = kind(*arguments, **settings)
        return scorer
    except CoppiceError:
        raise
    except (Exception, SystemExit) as error:  # whatever the constructor of a user's does
        raise InputError(f"the scorer {path} cannot be made: {describe_failure(error)}") from error


def _check(scorer: Scorer, path: str) -> None:
    """Raises InputError for what breaks the port: see `pipeline.scoring.scorers`."""
    absent = [name for name in _NEEDED if not hasattr(scorer, name)]
    if absent:
        raise _no_scorer(path, f"it lacks {', '.join(absent)}")
    for name in ("name", "version"):
        if not isinstance(value := getattr(scorer, name), str):
            raise _no_scorer(path, f"its {name} is {value!r:.60}, and should be text")
    id_of(scorer)
    _check_subjects(scorer.subjects, path)
    if not isinstance(scorer.needs_pictures, bool):
        raise _no_scorer(
            path, f"needs_pictures is {scorer.needs_pictures!r:.60}, not True or False"
        )
    _check_columns(scorer.columns, path)
    if not callable(scorer.score) or inspect.isclass(scorer.score):
        raise _no_scorer(path, "its score is no method")


def _check_name_is_free(name: str, path: str) -> None:
    """Under a bundled name its scores would be taken for ours, and ours for its."""
    if name in _TAKEN or (name in SCORERS and path != SCORERS[name]):
        what = "a word of recipes" if name in _TAKEN else "a scorer that is bundled"
        raise InputError(f"the scorer {path} calls itself {name!r}, which is {what}; rename it")


def _check_subjects(subjects: Iterable[str], path: str) -> None:
    try:
        is_right = bool(subjects) and set(subjects) <= set(SUBJECTS)  # of "trace" it is letters
    except TypeError:  # nothing to iterate over
        is_right = False
    if not is_right:
        raise _no_scorer(
            path,
            f"its subjects are {subjects!r:.100}, and should be a set of: {', '.join(SUBJECTS)}",
        )


def _check_columns(columns: Mapping[str, str], path: str) -> None:
    if not hasattr(columns, "items") or not columns:
        raise _no_scorer(
            path, f"its columns are {columns!r:.100}, and should be a dict of kinds by name"
        )
    if taken := sorted(set(KEY_COLUMNS) & set(columns)):
        raise InputError(f"{path} has columns that sidecars keep for the key: {taken}")
    for name, kind in columns.items():
        if not name or name != str(name):
            raise _no_scorer(path, f"a column is called {name!r:.60}, and should be called a word")
        if kind not in COLUMN_TYPES:
            raise InputError(
                f"{path} declares column {name!r:.60} of kind {kind!r:.60}, which there is not; "
                f"the kinds are: {', '.join(COLUMN_TYPES)}"
            )
    if columns.get("value", "float32") != "float32":
        raise InputError(
            f"{path} declares value of kind {columns['value']!r}; it is the score itself, a "
            "float32 from 0 to 1: call the column by another name"
        )


def _no_scorer(path: str, why: str) -> InputError:
    return InputError(f"{path} is no scorer: {why} (see pipeline.scoring.scorers)")
