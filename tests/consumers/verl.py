"""verl 0.9.1: `AgentLoopOutput` takes our segments, and its own function works out the advantages
of groups whose rollouts were revised more or less often.
"""

from importlib.metadata import version

import numpy as np
import torch
from datasets import load_dataset
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from tests.consumers.report import Report, gap, given, hand_back


def main() -> None:
    report = Report(version=version("verl"), ran=[], schema=[], problems=[])
    files = str(given() / "grpo/exports/verl-grpo/train/*.parquet")
    rows = list(load_dataset("parquet", data_files=files, split="train"))
    outputs = [AgentLoopOutput(**row, multi_modal_data={"images": row["images"]}) for row in rows]
    report["ran"].append(f"AgentLoopOutput of {len(outputs)} segments")

    keys = [f"{row['uid']}_{row['session_id']}_{row['index']}" for row in rows]
    advantages = advantages_of(rows, outputs, keys)
    off = gap([row["advantage"] for row in rows], advantages)
    sessions = {key.rpartition("_")[0] for key in keys}
    report["ran"].append(
        f"compute_advantage_for_multi_trajectories of {len(sessions)} rollouts with {len(keys)} "
        f"segments: {off:.1e} from ours at most"
    )
    if not off < 1e-4:
        report["problems"].append(f"verl's advantages are {off} from ours")
    hand_back(report)


def advantages_of(rows, outputs, keys: list[str]) -> list[float]:
    """What verl makes of the rewards: of each segment its rollout's advantage."""
    length = max(len(output.response_ids) for output in outputs)
    mask = torch.zeros(len(rows), length)
    scores = torch.zeros(len(rows), length)
    for index, output in enumerate(outputs):
        num = len(output.response_mask)
        mask[index, :num] = torch.tensor(output.response_mask, dtype=torch.float32)
        scores[index, num - 1] = output.reward_score
    data = DataProto.from_dict(
        tensors={"response_mask": mask, "token_level_rewards": scores},
        non_tensors={"uid": np.array([row["uid"] for row in rows], dtype=object)},
    )
    done = compute_advantage_for_multi_trajectories(data, keys, "grpo")
    first = mask.argmax(dim=1)
    return done.batch["advantages"][torch.arange(len(rows)), first].tolist()


if __name__ == "__main__":
    main()
