"""UniRL 0.2.0: its own data source reads the manifests; its Janus stage, given the toy's modules in
the place of its bundle, replays our drawings; its GRPO and SFT take a step on them.
"""

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import torch
from datasets import load_dataset
from unirl.data.datasets import TextPromptDataset
from unirl.data.sft import SupervisedDataSource
from unirl.models.janus_pro.conditions import JanusProImageARConditions
from unirl.models.janus_pro.image_ar import JanusProImageARStage

from coppice import Collator, janus_loss
from examples.unirl_janus import JanusGRPO, JanusSFT, JanusTracks
from pipeline.engine.checkpoints import load_janus, resolve_checkpoint
from tests.consumers.report import Report, gap, given, hand_back, json_lines


def main() -> None:
    janus = load_janus(resolve_checkpoint("toy"), dtype=torch.float32, device="cpu")
    pipeline = pipeline_of(janus)
    builder = JanusTracks(pipeline=pipeline)
    report = Report(
        version=version("unirl"),
        ran=["SupervisedDataSource", "TextPromptDataset", "JanusProImageARStage.replay"],
        schema=["the trainer's stack of Ray and FSDP (examples/unirl_janus.yaml): wants a GPU"],
        problems=[],
    )
    (sft,) = (given() / "sft/exports/unirl/train").glob("cfg-*/*.jsonl")
    (grpo,) = (given() / "grpo/exports/unirl/train").glob("cfg-*/*.jsonl")
    TextPromptDataset(str(sft))

    rollouts = SupervisedDataSource(str(grpo), shuffle=False).get_samples(
        len(json_lines(grpo.parent))
    )
    replay_gap, ratio = replayed(pipeline, builder, rollouts)
    report["ran"] += [
        f"replay of {len(rollouts)} drawings: {replay_gap:.1e} from logp_sample at most",
        f"a step of GRPO on them: ratio {ratio:.6f}",
    ]
    if not replay_gap < 1e-4 or abs(ratio - 1) > 1e-4:
        report["problems"].append(f"replay is {replay_gap} off, the ratio {ratio}")

    records = SupervisedDataSource(str(sft), shuffle=False).get_samples(8)
    report["loss"] = step(JanusSFT(pipeline=pipeline), builder.build(records)).loss
    report["own"] = own_loss(janus, [record["sample_id"] for record in records])
    report["ran"].append("a step of SFT on drawings, under guidance")
    hand_back(report)


def pipeline_of(janus: Any) -> Any:
    """The toy's modules where UniRL's stage looks for Janus-Pro's."""
    model = janus.model.model
    transformer = model.language_model
    wrapped = SimpleNamespace(
        gen_head=model.generation_head,
        prepare_gen_img_embeds=janus.model.prepare_embeddings_for_image_generation,
    )
    root = SimpleNamespace(
        model=transformer,
        get_input_embeddings=transformer.get_input_embeddings,
        parameters=transformer.parameters,
    )
    for weight in transformer.parameters():
        weight.requires_grad_(True)
    bundle = SimpleNamespace(
        model=wrapped, transformer=root, pad_token_id=janus.special.pad, device=torch.device("cpu")
    )
    stage = JanusProImageARStage(model=bundle, autocast_precision="fp32", logprob_precision="fp32")
    return SimpleNamespace(bundle=bundle, image_ar=stage)


def replayed(pipeline: Any, builder: Any, records: list[Any]) -> tuple[float, float]:
    """How far UniRL's log-probabilities are from ours at most, and the mean ratio of its GRPO."""
    part = builder.build(records)
    temperature = records[0]["metadata"]["temperature"]
    with torch.no_grad():
        scored = pipeline.image_ar.replay(
            JanusProImageARConditions.from_dict(dict(part.conditions)),
            segment=part.segment,
            temperature=temperature,
        )
    is_learned = part.segment.loss_mask.bool()
    ours = part.segment.log_probs[is_learned].tolist()
    algorithm = JanusGRPO(pipeline=pipeline, clip_range=0.2, sampling_temperature=temperature)
    metrics = step(algorithm, part).metrics
    ratio = next(value for name, value in sorted(metrics.items()) if "ratio_mean" in name)
    return gap(ours, scored[is_learned].tolist()), float(ratio)


def step(algorithm: Any, part: Any) -> Any:
    """Loss and gradients of a batch, as UniRL's stack asks for them."""
    algorithm.prepare_segment(conditions=part.conditions, segment=part.segment) if hasattr(
        algorithm, "prepare_segment"
    ) else None
    return algorithm.compute_loss_and_backward(
        conditions=part.conditions,
        segment=part.segment,
        advantages=part.advantages,
        training_progress=0.0,
        loss_scale=1.0,
    )


def own_loss(janus: Any, names: list[str]) -> float:
    """Our loss of the same drawings, from the rows of the set."""
    files = str(given() / "sft/sft/draw_*/train-*.parquet")
    rows = {row["id"]: row for row in load_dataset("parquet", data_files=files, split="train")}
    collate = Collator.for_janus(janus, as_sampled=True)
    with torch.no_grad():
        return float(janus_loss(janus.model, collate([rows[name] for name in names])))


if __name__ == "__main__":
    main()
