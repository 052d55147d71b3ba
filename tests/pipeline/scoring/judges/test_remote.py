"""Judges behind an endpoint, which a stand-in plays over a real wire."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.commands.score import ScoreRequest, plan_scorers
from pipeline.plan.endpoints import endpoint_of
from pipeline.scoring.find import find_scorer
from pipeline.scoring.judges.remote.pairwise import pairs_of
from pipeline.scoring.judges.remote.settings import with_endpoints
from pipeline.scoring.scorers import Score, Scorer, ScoringInput, id_of
from pipeline.scoring.settings import parse_request
from pipeline.scoring.sidecars import score_object
from pipeline.store.layout import sidecar_key
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import Pictures
from schemas.errors import EndpointAway, InputError
from tests.stand_in_server import (
    MODEL,
    Asked,
    Reaction,
    StandIn,
    completion,
    error_body,
    good_answer,
    stand_in_server,
)
from tests.support import fake_config, fake_method, plan_run, run_all

PICTURE = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr("pipeline.endpoints.client._FIRST_PAUSE_SECONDS", 0.01)
    with stand_in_server() as running:
        yield running


def tables(server: StandIn, **method: Any) -> dict[str, Any]:
    endpoint = {"url": server.url, "patience_seconds": 0.2, "max_tries": 2}
    names = ("critic", "other")
    return {
        "method": {"endpoints": dict.fromkeys(names, {"model": MODEL} | method)},
        "execution": {"endpoints": dict.fromkeys(names, endpoint)},
    }


def judge(server: StandIn, text: str) -> Scorer:
    """A scorer as a command line names it, loaded."""
    (request,) = with_endpoints([parse_request(text)], partial(endpoint_of, tables(server)))
    scorer = find_scorer(request.name, request.settings)
    scorer.load("cpu")  # type: ignore[attr-defined]
    return scorer


def scores_of(scorer: Scorer, prompts: Sequence[str]) -> list[Score]:
    return scorer.score([ScoringInput(prompt=prompt, pixels=PICTURE) for prompt in prompts])


def first_token(token: str, **others: float) -> Reaction:
    """An answer of one token; the keyword `_Yes` is the token ` Yes`."""
    told = [{"token": name.replace("_", " "), "logprob": p} for name, p in others.items()]
    place = {"token": token, "logprob": others.get(token, -9.0), "top_logprobs": told}
    return Reaction(body=completion(token, logprobs={"content": [place]}))


# P(yes)


def test_spellings_of_yes_and_no_are_merged(server: StandIn):
    likely = {"Yes": math.log(0.3), "_yes": math.log(0.3), "No": math.log(0.2), "Maybe": -1.6}
    server.react = lambda asked: first_token("Yes", **likely)
    (score,) = scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])

    assert score.value == pytest.approx(0.6 / 0.8)
    assert score.parts["mass"] == pytest.approx(0.8)
    assert score.parts["outcome"] == "ok"


def test_a_question_is_drawn_from_as_it_is_and_never_held_to_a_choice(server: StandIn):
    scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])
    body = server.questions[-1].body

    assert (body["temperature"], body["max_tokens"]) == (1.0, 1)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert "response_format" not in body
    assert "a red cube" in json.dumps(body["messages"])
    assert "image_url" in json.dumps(body["messages"])


def test_tokens_that_are_spelled_alike_count_each_and_the_drawn_one_once(server: StandIn):
    alike = {"token": "Yes", "logprob": math.log(0.2)}
    told = [alike | {"logprob": math.log(0.4)}, alike, {"token": "No", "logprob": math.log(0.2)}]
    place = told[0] | {"top_logprobs": told}
    server.react = lambda asked: Reaction(body=completion("Yes", logprobs={"content": [place]}))
    (score,) = scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])

    assert score.value == pytest.approx(0.6 / 0.8)


@pytest.mark.parametrize("likely", [{"Maybe": -0.1}, {"Maybe": -0.1, "Yes": -9.0}, {}])
def test_an_answer_that_is_neither_is_no_score(likely: dict[str, float], server: StandIn):
    server.react = lambda asked: first_token("Maybe", **likely)
    (score,) = scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])

    assert score.value is None
    assert score.parts["outcome"] == "refused"


def test_a_server_without_likelihoods_gives_no_score(server: StandIn):
    (score,) = scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])

    assert (score.value, score.parts["outcome"]) == (None, "refused")


def test_where_a_server_tells_of_tokens_by_id_the_answer_is_exact(server: StandIn):
    """Whatever their rank."""
    server.tokens = {"Yes": 7, "No": 8}
    server.answers_probes = False

    def react(asked: Asked) -> Reaction:
        if ids := asked.body.get("logprob_token_ids"):
            assert sorted(ids) == [7, 8]
            return first_token("x", Yes=math.log(1e-3), No=math.log(3e-3))
        return good_answer(asked)

    server.react = react
    (score,) = scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])

    assert score.parts["mass"] == pytest.approx(4e-3)
    assert score.value is None  # and so far below what counts as an answer
    assert "top_logprobs" not in server.asked[-1].body


def test_a_server_that_ignores_ids_is_asked_for_the_likeliest(server: StandIn):
    server.tokens = {"Yes": 7, "No": 8}
    scores_of(judge(server, "lmm_yes[endpoint=critic]"), ["a red cube"])

    assert server.questions[-1].body["top_logprobs"] == 20


def test_two_endpoints_differ_in_a_column(server: StandIn):
    shares = iter([0.9, 0.4])
    server.react = lambda asked: first_token(
        "Yes", **dict(zip(("Yes", "No"), map(math.log, split(next(shares))), strict=True))
    )
    scorer = judge(server, "lmm_yes[endpoint=critic,against=other]")
    (score,) = scores_of(scorer, ["a red cube"])

    assert score.value == pytest.approx(0.9)
    assert score.parts["second"] == pytest.approx(0.4)
    assert score.parts["disagreement"] == pytest.approx(0.5)
    assert {"second", "disagreement"} <= set(scorer.columns)


def split(share: float) -> tuple[float, float]:
    return share, 1 - share


# In words


def test_a_rubric_gives_points_and_keeps_its_reasons(server: StandIn):
    said = [json.dumps({"reasons": "It is red.", "points": 80}), '{"points": 101}', "Nice!"]
    server.react = lambda asked: (
        Reaction(body=completion(said.pop(0))) if asked.schema == "rubric" else good_answer(asked)
    )
    scorer = judge(server, "rubric[endpoint=critic]")
    scores = [scores_of(scorer, ["a red cube"])[0] for _ in range(3)]

    assert [score.value for score in scores] == [0.8, None, None]
    assert scores[0].parts["reasons"] == "It is red."
    assert [score.parts["outcome"] for score in scores] == ["ok", "refused", "refused"]
    assert scores[2].parts["reasons"] == "Nice!"


def test_soft_tifa_asks_about_all_that_a_prompt_names(server: StandIn):
    server.react = lambda asked: first_token(
        "Yes", **({"Yes": math.log(0.25), "No": math.log(0.75)} if "red" in asked.text else YES)
    )
    scorer = judge(server, "soft_tifa[endpoint=critic]")
    (score,) = scores_of(scorer, ["a red cube and two blue balls"])
    answers = json.loads(str(score.parts["answers"]))

    assert len(answers) == 4
    assert answers["Is the cube in the picture red?"] == pytest.approx(0.25)
    assert score.value == pytest.approx((3 + 0.25) / 4)
    assert score.parts["weakest"] == pytest.approx(0.25)


YES = {"Yes": math.log(0.999999)}


def test_soft_tifa_may_have_its_questions_from_the_model(server: StandIn):
    def react(asked: Asked) -> Reaction:
        if asked.schema == "questions":
            return Reaction(body=completion('{"questions": ["Is it red?", "Is it red?"]}'))
        return first_token("Yes", **YES)

    server.react = react
    scorer = judge(server, "soft_tifa[endpoint=critic,questions=model,mean=geometric]")
    (score,) = scores_of(scorer, ["une chose rouge"])

    assert list(json.loads(str(score.parts["answers"]))) == ["Is it red?"]
    assert score.value == pytest.approx(1.0)


# Pairs


def test_each_pair_is_shown_both_ways_and_a_judge_of_places_is_a_draw(server: StandIn):
    """One that likes the first picture, whatever is on it."""
    said = json.dumps({"reasons": "I like it.", "better": "first"})
    server.react = lambda asked: (
        Reaction(body=completion(said)) if asked.schema == "pair" else good_answer(asked)
    )
    scores = scores_of(judge(server, "pairwise[endpoint=critic]"), ["a", "a", "a", "b"])

    assert [score.value for score in scores] == [0.5, 0.5, 0.5, None]
    assert [score.parts.get("steady") for score in scores] == [0.0, 0.0, 0.0, None]
    assert scores[3].parts["outcome"] == "not_applicable"
    assert len([asked for asked in server.asked if asked.schema == "pair"]) == 6


def test_the_better_picture_wins_whatever_its_place(server: StandIn):
    def react(asked: Asked) -> Reaction:
        if asked.schema != "pair":
            return good_answer(asked)
        first, second = (
            part["image_url"]["url"] for part in asked.body["messages"][0]["content"][:2]
        )
        better = "first" if len(first) > len(second) else "second"
        return Reaction(body=completion(json.dumps({"reasons": better, "better": better})))

    server.react = react
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    scorer = judge(server, "pairwise[endpoint=critic]")
    scores = scorer.score([ScoringInput(prompt="a", pixels=pixels) for pixels in (PICTURE, noise)])

    assert [score.value for score in scores] == [0.0, 1.0]
    assert scores[1].parts["steady"] == 1.0
    assert scores[1].parts["reasons"] == "second\nfirst"


def test_a_large_group_is_compared_with_some_each_alike():
    pairs = pairs_of(["a"] * 20, 6)
    met = [index for pair in pairs for index in pair]

    assert {met.count(index) for index in range(20)} == {6}
    assert len(set(map(frozenset, pairs))) == len(pairs)
    assert pairs_of(["a", "b", "a"], 8) == [(0, 2)]


# What goes wrong


def test_a_question_that_fails_alone_is_an_outcome_and_not_a_score(server: StandIn):
    def react(asked: Asked) -> Reaction:
        text = asked.text
        if "too long" in text:
            return Reaction(status=400, body=error_body("no", param="input_tokens"))
        return Reaction(status=500) if "broken" in text else first_token("Yes", **YES)

    server.react = react
    scorer = judge(server, "lmm_yes[endpoint=critic]")
    scores = scores_of(scorer, ["too long", "broken", "good"])

    assert [score.value for score in scores] == [None, None, pytest.approx(1.0)]
    assert [score.parts["outcome"] for score in scores] == ["too_long", "failed", "ok"]


def test_a_server_that_is_gone_ends_the_scoring_and_is_no_score(server: StandIn):
    scorer = judge(server, "rubric[endpoint=critic]")
    server.close()
    with pytest.raises(EndpointAway, match="give the same command again"):
        scores_of(scorer, ["a red cube"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lmm_yes[endpoint=nobody]", r"no \[method.endpoints.nobody\]"),
        ("rubric", "endpoint"),
        ("lmm_yes[endpoint=critic,question=hm]", "has {prompt} in it"),
        ("lmm_yes[endpoint=critic,dtype=float32]", "dtype"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_work(text: str, words: str, server: StandIn):
    with pytest.raises(InputError, match=words):
        judge(server, text)


# As scorers of a run


def test_which_model_answers_is_part_of_the_version_and_where_it_is_is_not(server: StandIn):
    def version(text: str, **method: Any) -> str:
        find = partial(endpoint_of, tables(server, **method))
        (request,) = with_endpoints([parse_request(text)], find)
        return str(id_of(find_scorer(request.name, request.settings)))

    first = version("lmm_yes[endpoint=critic]")
    assert re.fullmatch(r"lmm_yes@1-[0-9a-f]{8}", first)
    assert version("lmm_yes[endpoint=other]") == first
    assert version("lmm_yes[endpoint=critic]", revision="b") != first
    assert version("lmm_yes[endpoint=critic,against=other]") != first


def test_a_command_names_an_endpoint_of_its_config(server: StandIn, tmp_path: Path):
    config = tmp_path / "judges.toml"
    config.write_text(
        f'[method.endpoints.critic]\nmodel = "{MODEL}"\n'
        f'[execution.endpoints.critic]\nurl = "{server.url}"\n'
    )
    request = ScoreRequest(
        run=str(tmp_path),
        scorers=["rubric[endpoint=critic]", "toy"],
        config=str(config),
        num_workers=1,
        num_gpus=0,
        address=None,
    )
    rubric, toy = plan_scorers(request)

    assert (rubric.id.name, toy.id.name) == ("rubric", "toy")
    assert rubric.settings is not None
    assert rubric.load("cpu").name == "rubric"


def test_a_run_is_scored_and_those_that_compare_see_a_whole_object(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.scoring.sidecars._ROWS_AT_ONCE", 1)
    said = json.dumps({"reasons": "so", "better": "neither"})
    server.react = lambda asked: (
        Reaction(body=completion(said)) if asked.schema == "pair" else good_answer(asked)
    )
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(pictures=Pictures.FINAL))
    run_all(store, plan_run(store, 2, config, rollouts_per_record=2))
    run = open_run(store.url)
    scorer = judge(server, "pairwise[endpoint=critic]")
    score_object(store, run.objects[0], scorer)
    key = sidecar_key(run.objects[0].name, id_of(scorer))
    rows = pq.read_table(tmp_path / "run" / key).to_pylist()

    assert [row["value"] for row in rows] == [0.5] * 4
