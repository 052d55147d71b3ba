"""From a worked case, as a line of JSON, to the formula that it is about, and to what differs."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.scoring.formulae import (
    aggregates,
    answers,
    compbench,
    detection_rewards,
    geneval,
    phrases,
    relations,
)
from pipeline.scoring.formulae.boxes import Detection

Table = Mapping[str, Any]  # the input of a case, which is JSON of a form for each kind

TOLERANCE = 1e-6


def differences(line: str) -> str | None:
    """What a case gives instead of what it expects; None if they are equal."""
    case = json.loads(line)
    name = f"{case['id']} ({case['kind']}, {case['mode']}: {case['note']})"
    formula = FORMULAE.get((case["kind"], case["mode"]))
    if formula is None:
        return f"{name}: there is no formula for this kind and mode"
    try:
        given = formula(case["input"])
    except Exception as error:  # one case that breaks must not hide the others
        return f"{name}: {type(error).__name__}: {error}"
    if is_equal(given, case["expected"]):
        return None
    return f"{name}: expected {case['expected']!r}, found {given!r}"


def is_equal(given: Any, expected: Any) -> bool:
    """Numbers to 1e-6, everything else exactly, and of the same type."""
    if isinstance(expected, dict):
        return (
            isinstance(given, dict)
            and given.keys() == expected.keys()
            and all(is_equal(given[key], expected[key]) for key in expected)
        )
    if isinstance(expected, list):
        return (
            isinstance(given, list)
            and len(given) == len(expected)
            and all(map(is_equal, given, expected))
        )
    if expected == "nan":
        return isinstance(given, float) and math.isnan(given)
    if expected is None or isinstance(expected, bool | str):
        return type(given) is type(expected) and given == expected
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return is_number and abs(given - expected) <= TOLERANCE


def _phrases(score: Callable[..., list[phrases.PhraseScores]]) -> Callable[[Table], Any]:
    def run(table: Table) -> Any:
        probabilities = np.array(table["probs"], np.float64)  # of no query: without tokens
        scored = score(table["nouns"], table["words"], probabilities)
        return [
            {"label": row.label, "scores": None if row.scores is None else list(row.scores)}
            for row in scored
        ]

    return run


def _detection_task(table: Table) -> detection_rewards.DetectionTask:
    spatial = table.get("spatial_info")
    return detection_rewards.DetectionTask(
        task_type=table["task_type"],
        nouns=table["nouns"],
        width=table["width"],
        height=table["height"],
        spatial=spatial
        and detection_rewards.SpatialInfo(
            subject=spatial["obj1"], target=spatial["obj2"], relation=spatial["locality"]
        ),
        counts=[
            detection_rewards.CountInfo(name=item["obj_name"], number=item["num"])
            for item in table.get("numeracy_info") or ()
        ],
    )


def _published_yes_no(table: Table) -> float:
    return answers.published_yes_no(
        table["vocab"],
        np.array(table["logits"], np.float64),
        temperature=table["temperature"],
        sampled=table["sampled"],
    )


def _yes_no(table: Table) -> float | None:
    if "logprobs" in table:
        return answers.yes_share(answers.yes_no_of_logprobs(table["vocab"], table["logprobs"]))
    logits = np.array(table["logits"], np.float64)
    return answers.yes_share(answers.yes_no_of_logits(table["vocab"], logits))


def _git(score: Callable[..., float | None]) -> Callable[[Table], Any]:
    def run(table: Table) -> Any:
        asked = None if table["attr_nouns"] is None else table["answers"]["attr_nouns"]
        return score(table["task_type"], table["answers"]["nouns"], asked)

    return run


def _cosine(score: Callable[..., float | None]) -> Callable[[Table], Any]:
    return lambda table: score(np.array(table["image"]), np.array(table["text"]))


def _score_rows(table: Table) -> list[list[Any]]:
    return [[row["scores"].get(name) for name in table["rewards"]] for row in table["rows"]]


def _published_aggregate(table: Table) -> Any:
    if table["method"] == "sum":
        return aggregates.published_sum(_score_rows(table))
    return aggregates.published_advantage(_score_rows(table), table["group_size"])


def _aggregate(table: Table) -> Any:
    return aggregates.aggregate(
        aggregates.Aggregate(table["method"]),
        _score_rows(table),
        groups=[row["group"] for row in table["rows"]],
        categories=[row["category"] for row in table["rows"]],
    )


def _published_blip(table: Table) -> float:
    asked = answers.published_chunks_asked(table["chunks"])
    return answers.published_chunk_product([table["answers"][index] for index in asked])


def _blip(table: Table) -> float | None:
    asked = answers.chunks_asked(table["chunks"])
    return answers.chunk_product([table["answers"][index] for index in asked])


def _detections(table: Table) -> list[Detection]:
    return [
        Detection(label=row["label"], score=row["score"], box=tuple(row["box"]))
        for row in table["detections"]
    ]


def _relation_task(table: Table) -> compbench.RelationTask:
    return compbench.RelationTask(
        subject=table["obj1"], target=table["obj2"], relation=table["locality"]
    )


def _spatial_2d(table: Table) -> float | None:
    return compbench.relation_score(
        _relation_task(table),
        _detections(table),
        width=table["width"],
        height=table["height"],
    )


def _spatial_3d(table: Table) -> float | None:
    depth = np.array(table["depth"], np.float64)
    return compbench.relation_score(
        _relation_task(table),
        _detections(table),
        width=depth.shape[1],
        height=depth.shape[0],
        depth=depth,
    )


def _published_spatial_3d(table: Table) -> float:
    depth = np.array(table["depth"], np.float64)
    return compbench.published_depth_score(_relation_task(table), _detections(table), depth)


def _count_tasks(table: Table) -> list[compbench.CountTask]:
    return [compbench.CountTask(name=item["name"], number=item["count"]) for item in table["items"]]


def _numeracy(table: Table) -> float | None:
    return compbench.count_score(
        _count_tasks(table), _detections(table), width=table["width"], height=table["height"]
    )


def _three_in_one(table: Table) -> list[float | None]:
    lists = compbench.PromptLists(spatial=table["spatial"], action=table["action"])
    return [
        compbench.three_in_one(
            table["prompts"][index // table["images_per_prompt"]],
            compbench.ThreeScores(blip=blip, unidet=unidet, clip=clip),
            lists,
        )
        for index, (blip, unidet, clip) in enumerate(
            zip(table["blip"], table["unidet"], table["clip"], strict=True)
        )
    ]


def _published_three_in_one(table: Table) -> list[float]:
    lists = compbench.PromptLists(spatial=table["spatial"], action=table["action"])
    return [
        compbench.published_three_in_one(
            table["prompts"][index // table["images_per_prompt"]], *scores, lists
        )
        for index, scores in enumerate(
            zip(table["blip"], table["unidet"], table["clip"], strict=True)
        )
    ]


def _geneval(evaluate: Callable[..., geneval.Finding]) -> Callable[[Table], Any]:
    def run(table: Table) -> Any:
        metadata = table["metadata"]
        task = geneval.Task(
            tag=metadata["tag"],
            include=[_clause(clause) for clause in metadata.get("include", ())],
            exclude=[_clause(clause) for clause in metadata.get("exclude", ())],
        )
        objects = [
            geneval.SeenObject(
                name=row["class"],
                score=row["score"],
                box=tuple(row["box"]),
                colour=row.get("color"),
            )
            for row in table["objects"]
        ]
        finding = evaluate(task, objects)
        return {"correct": finding.correct, "reason": finding.reason}

    return run


def _clause(clause: Table) -> geneval.Clause:
    position = clause.get("position")
    return geneval.Clause(
        name=clause["class"],
        count=clause["count"],
        colour=clause.get("color"),
        position=None if position is None else (position[0], position[1]),
    )


def _published_relation(table: Table) -> float:
    return relations.published_position(table["relation"], tuple(table["a"]), tuple(table["b"]))


def _layout(judge: Callable[..., float | bool | None]) -> Callable[[Table], Any]:
    def run(table: Table) -> Any:
        depth = table.get("depth")
        return judge(
            table["relation"],
            tuple(table["a"]),
            tuple(table["b"]),
            width=table["width"],
            height=table["height"],
            depth=None if depth is None else np.array(depth, np.float64),
        )

    return run


FORMULAE: Mapping[tuple[str, str], Callable[[Table], Any]] = {
    ("phrase_scores", "t2i-r1"): _phrases(phrases.published_phrase_scores),
    ("phrase_scores", "fixed"): _phrases(phrases.phrase_scores),
    ("detection_reward", "t2i-r1"): lambda table: detection_rewards.published_detection_reward(
        _detection_task(table), table["detections"]
    ),
    ("detection_reward", "fixed"): lambda table: detection_rewards.detection_reward(
        _detection_task(table), table["detections"]
    ),
    ("yes_no", "t2i-r1"): _published_yes_no,
    ("yes_no", "fixed"): _yes_no,
    ("git_vqa", "t2i-r1"): _git(answers.published_phrase_answers),
    ("git_vqa", "fixed"): _git(answers.phrase_answers),
    ("hps", "t2i-r1"): _cosine(answers.published_cosine),
    ("hps", "fixed"): _cosine(answers.cosine),
    ("aggregate", "t2i-r1"): _published_aggregate,
    ("aggregate", "fixed"): _aggregate,
    ("blip_vqa", "official"): _published_blip,
    ("blip_vqa", "fixed"): _blip,
    ("compbench_spatial_2d", "official"): lambda table: compbench.published_relation_score(
        _relation_task(table), _detections(table)
    ),
    ("compbench_spatial_2d", "fixed"): _spatial_2d,
    ("compbench_3d", "official"): _published_spatial_3d,
    ("compbench_3d", "fixed"): _spatial_3d,
    ("compbench_numeracy", "official"): lambda table: compbench.published_count_score(
        _count_tasks(table), _detections(table)
    ),
    ("compbench_numeracy", "fixed"): _numeracy,
    ("three_in_one", "official"): _published_three_in_one,
    ("three_in_one", "fixed"): _three_in_one,
    ("geneval", "official"): _geneval(geneval.published_evaluate),
    ("geneval", "fixed"): _geneval(geneval.evaluate),
    ("relation", "official"): _published_relation,
    ("relation", "fixed"): _layout(relations.degree),
    ("layout", "fixed"): _layout(relations.verdict),
}
