"""peft 0.21.2: SFT of thoughts, critiques and drawings by our collator, with adapters alone."""

from importlib.metadata import version

from examples.sft_janus import fine_tune
from tests.consumers.report import Report, given, hand_back


def main() -> None:
    report = Report(version=version("peft"), ran=[], schema=[], problems=[])
    out = given() / "lora"
    losses = fine_tune("toy", given() / "sft", out, num_steps=12, rank=4, rate=3e-3, device="cpu")
    if not (out / "adapter_config.json").exists():
        report["problems"].append("no adapter was written")
    if not min(losses[-3:]) < losses[0]:
        report["problems"].append(f"twelve steps, and the loss went {losses}")
    report["loss"] = losses[0]
    report["ran"].append(f"12 steps of rank 4: loss {losses[0]:.4f} to {losses[-1]:.4f}")
    hand_back(report)


if __name__ == "__main__":
    main()
