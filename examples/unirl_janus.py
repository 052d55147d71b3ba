"""Coppice's drawings in UniRL 0.2.0, which trains Janus-Pro on them: SFT, and GRPO on finished
rollouts. Named by a config of `python -m unirl.train_sft`, see `unirl_janus.yaml`.

The manifest is an export: `coppice export SET --export unirl`. A record tells tokens, so nothing is
tokenized or encoded here: the canvas stands before the region, and `loss_mask` is 0 on it.
"""

import torch
from unirl.algorithms.grpo import GRPO
from unirl.algorithms.sft import SFT
from unirl.distributed.group.dispatch import Dispatch, distributed
from unirl.models.janus_pro.conditions import JanusProImageARConditions
from unirl.models.janus_pro.image_prompt import _right_pad_rows
from unirl.train.sft.track_builder import SupervisedTrackBuilder
from unirl.types.sample import Part
from unirl.types.segments import TextSegment


class JanusTracks(SupervisedTrackBuilder):
    """Records of a manifest as what UniRL's algorithms learn. Those of one batch share a weight."""

    def __init__(self, *, pipeline):
        super().__init__()
        self.pad_id = pipeline.bundle.pad_token_id

    @distributed(dispatch_mode=Dispatch.DP_SCATTER)
    def build(self, records):
        told = [record["metadata"] for record in records]
        prompts = [row["prompt_ids"] for row in told]
        blank = [[ids[0], *[self.pad_id] * (len(ids) - 2), ids[-1]] for ids in prompts]
        pad = {"pad_id": self.pad_id, "device": torch.device("cpu")}
        (weight,) = {row["cfg_weight"] for row in told}
        conditions = JanusProImageARConditions(
            prompt=_right_pad_rows(prompts, **pad),
            cfg_prompt=_right_pad_rows(blank, **pad),
            cfg_weight=weight,
        )
        columns = {"tokens": [torch.tensor(row["tokens"]) for row in told]}
        columns["loss_mask"] = [torch.tensor(row["loss_mask"]).float() for row in told]
        is_rollout = told[0]["advantage"] is not None
        if is_rollout:
            columns["log_probs"] = [torch.tensor(row["log_probs"]) for row in told]
        return Part(
            sample_ids=[record["sample_id"] for record in records],
            conditions=conditions.to_dict(),
            segment=TextSegment.pack(**columns),
            advantages=torch.tensor([row["advantage"] for row in told]) if is_rollout else None,
            metadata=told,
        )


class JanusSFT(SFT):
    """The guided loss of drawings: at temperature 1, which is all that UniRL's SFT knows."""

    def __init__(self, *, pipeline, **settings):
        settings |= {"stage_attr": "image_ar", "conditions_cls": JanusProImageARConditions}
        super().__init__(pipeline=pipeline, **settings)


class JanusGRPO(GRPO):
    """Clipped policy gradient on rollouts that are there. `sampling_temperature` is theirs."""

    def __init__(self, *, pipeline, **settings):
        settings |= {"stage_attr": "image_ar", "conditions_cls": JanusProImageARConditions}
        super().__init__(pipeline=pipeline, **settings)
