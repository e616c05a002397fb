"""One worker of train_prefix.py: optimizer steps of TRL's SFTTrainer, plain or patched by Unsloth.

Imports nothing of ours, so that it runs in the peer's own virtual environment. Prints one JSON
object: seconds and processor seconds of each step, losses, peak memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--peer", choices=["trl", "unsloth"], required=True)
    parser.add_argument("--model", required=True, help="folder of safetensors and tokenizer")
    parser.add_argument("--rows", required=True, help="JSON file: batches of token ids and labels")
    parser.add_argument("--micro", type=int, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    print(json.dumps(run(parser.parse_args())))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train one optimizer step a batch of the rows file; the first is a warm-up."""
    if options.peer == "unsloth":
        import unsloth  # type: ignore[import-not-found]  # noqa: F401  # before transformers
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(options.threads)
    batches = json.loads(Path(options.rows).read_text())
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = (unsloth_model if options.peer == "unsloth" else trl_model)(options)
    before = common.peak_memory_mb()
    clock = common.Clock()
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        train(model, tokenizer, batches, options, clock, losses, directory)
    return {
        **clock.steps(),
        "losses": losses,
        "peak_mb": common.peak_memory_mb(),
        "loaded_mb": before,
    }


def trl_model(options: argparse.Namespace) -> Any:
    """Return the fp32 model under LoRA on all linear layers, drawn from a fixed seed."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    torch.manual_seed(7)
    config = LoraConfig(
        r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config)


def unsloth_model(options: argparse.Namespace) -> Any:
    """Return the same by Unsloth's own loader and adapter, as its documentation does it."""
    import torch
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        options.model,
        max_seq_length=2048,
        dtype=torch.float32 if options.precision == "fp32" else torch.bfloat16,
        load_in_4bit=False,
    )
    return FastLanguageModel.get_peft_model(
        model, r=options.rank, lora_alpha=2 * options.rank, target_modules=PROJECTIONS,
        lora_dropout=0, bias="none", random_state=7,
        use_gradient_checkpointing="unsloth" if options.checkpointing else False,
    )  # fmt: skip


def train(
    model: Any,
    tokenizer: Any,
    batches: list[list[dict[str, list[int]]]],
    options: argparse.Namespace,
    clock: Any,
    losses: list[float],
    directory: str,
) -> None:
    """Run the trainer; `clock` sees each optimizer step's start and end."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.stop()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    settings = SFTConfig(
        output_dir=directory,
        per_device_train_batch_size=options.micro,
        gradient_accumulation_steps=len(batches[0]) // options.micro,
        max_steps=len(batches),
        learning_rate=options.rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=options.checkpointing,
        bf16=options.precision == "bf16",
        use_cpu=True,
        max_length=None if options.peer == "trl" else 2048,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        shuffle_dataset=False,
        train_sampling_strategy="sequential",
    )
    rows = Dataset.from_list([row for batch in batches for row in batch])
    trainer = SFTTrainer(
        model=model, args=settings, train_dataset=rows, processing_class=tokenizer,
        callbacks=[Watch()],
    )  # fmt: skip
    trainer.train()


if __name__ == "__main__":
    main()
