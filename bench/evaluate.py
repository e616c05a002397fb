"""Seconds a row of evaluating the demo model on Banking77: ours against plain transformers.

1,000 test rows, a prompt with the 77 labels, greedy text of the same length. `ours` is the
evaluation's own runner with the candidates it makes: the base model bare, with six examples and
tuned, each writing freely, held to the label list, and both, as an evaluation asks. `generate` is
transformers' generate over the same prompts, padded on the left; `generate_prefix` gives it the
keys and values of the instructions, computed once. The peers run the same candidates in free text
alone, over `--peer-rows` rows drawn from the same: a row's time does not depend on how many follow.
The tuned model is a LoRA trained for a few steps here, so it writes labels. `floor` is the time of
the matrix products of the tokens that ours computed, at this machine's rate for large ones.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "banking77"
ASK = (
    "Classify the customer's message. Reply with exactly one label of this list and nothing "
    "else.\n\n"
)
SHOTS, BATCH = 6, 256
TRAIN_ROWS, TRAIN_BATCH, RATE = 2000, 16, 1e-3
SIDES = ("ours", "generate", "generate_prefix")
FREE = ("base", "few_shot", "tuned")
KINDS = {
    "free": FREE,
    "list": tuple(f"{name}_constrained" for name in FREE),
    "all": tuple(f"{name}_both" for name in FREE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="64 rows, a shorter training")
    parser.add_argument("--rows", type=int, default=None, help="rows that ours answers")
    parser.add_argument("--peer-rows", type=int, default=None, help="rows that the peers answer")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--sides", nargs="*", default=SIDES, choices=SIDES)
    parser.add_argument("--train-steps", type=int, default=None)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    if not DATA.is_dir():
        raise SystemExit("the Banking77 rows are not at shared/data/banking77 beside the checkout")
    report = compare(options)
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(report["rows"]))
    print(report["headline"])


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report; every side runs in a process of its own."""
    rows = options.rows or (64 if options.quick else 1000)
    peers = options.peer_rows or (BATCH if options.quick else 2 * BATCH)
    steps = options.train_steps or (10 if options.quick else 40)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        wish = {
            "adapter": folder, "batch": options.batch, "threads": options.threads,
            "kinds": options.kinds,
        }  # fmt: skip
        _run({**wish, "side": "train", "steps": steps}, options.threads)
        for side in options.sides:
            count = rows if side == "ours" else min(peers, rows)
            found[side] = _run({**wish, "side": side, "rows": count}, options.threads)
            print(f"{side}: {found[side]}", file=sys.stderr, flush=True)
    table = [
        {"side": side, "candidate": name, "rows": cost["rows"], **cost}
        for side, result in found.items()
        for name, cost in result["candidates"].items()
    ]
    machine = {**common.machine(), "threads": options.threads}
    return {"name": "evaluate", "machine": machine, "rows": table, "headline": headline(found)}


def _run(wish: dict[str, Any], threads: int) -> dict[str, Any]:
    return common.child(__file__, ["--worker", json.dumps(wish)], threads=threads)


def headline(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the ratios: their processor seconds a row over ours, and ours for 1,000 rows.

    `vs_generate` is for all that an evaluation asks, text and label lists, against text alone;
    `list_` is the three candidates held to the label list, `free_` the same three in free text.
    """
    numbers: dict[str, float] = {}
    if "ours" not in found:
        return numbers
    ours = found["ours"]["candidates"]
    kinds = {kind: names for kind, names in KINDS.items() if names[0] in ours}
    for kind, names in kinds.items():
        numbers[f"{kind}_cpu_s"] = round(1000 * sum(ours[n]["cpu_s_row"] for n in names))
        numbers[f"{kind}_minutes"] = round(1000 / 60 * sum(ours[n]["s_row"] for n in names), 2)
    for peer in ("generate", "generate_prefix"):
        if peer in found:
            theirs = 1000 * sum(c["cpu_s_row"] for c in found[peer]["candidates"].values())
            for kind in kinds:
                name = "vs" if kind == "all" else f"{kind}_vs"
                numbers[f"{name}_{peer}"] = round(theirs / numbers[f"{kind}_cpu_s"], 2)
    numbers["floor_share"] = found["ours"]["floor_share"]
    numbers["peak_mb"] = found["ours"]["peak_mb"]
    return numbers


def work(wish: dict[str, Any]) -> dict[str, Any]:
    """Do one worker's part."""
    import torch

    torch.set_num_threads(wish["threads"])
    if wish["side"] == "train":
        return train(wish)
    return ours(wish) if wish["side"] == "ours" else plain(wish)


def read(name: str) -> list[Any]:
    """Return a file's rows as examples."""
    from tutelage.core.example import Example, Message

    with (DATA / name).open(encoding="utf-8", newline="") as stream:
        return [
            Example(
                messages=(
                    Message(role="user", content=row["text"]),
                    Message(role="assistant", content=row["category"]),
                ),
                label=row["category"],
            )
            for row in csv.DictReader(stream)
        ]


def task_of(rows: int, count_tokens: Any) -> tuple[Any, Any]:
    """Return the project and its task over `rows` test rows."""
    from tutelage.core.config import Project
    from tutelage.evaluation.task import make_task

    train, test = read("train.csv"), read("test.csv")
    labels = sorted({row.label for row in train})
    config = Project.model_validate(
        {
            "name": "banking", "task": "classification", "model": "demo",
            "prompt": ASK + "\n".join(labels), "output": {"labels": labels},
            "evaluate": {"few_shot": SHOTS},
        }
    )  # fmt: skip
    drawn = random.Random(1).sample(test, rows)
    return config, make_task(config, train, drawn, lambda item: item, count_tokens)


def ours(wish: dict[str, Any]) -> dict[str, Any]:
    """Return what each candidate costs in our runner."""
    from tutelage.evaluation.candidates import make_candidates
    from tutelage.evaluation.rows import Journal
    from tutelage.evaluation.runner import Bench, run
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import TransformersGenerator

    engine = TransformersGenerator(locate_model("demo"), batch_size=wish["batch"], merge=True)
    _, task = task_of(wish["rows"], lambda text: len(engine.tokenizer(text)["input_ids"]))
    adapter = Path(wish["adapter"])
    bench = Bench(engine, adapter, wish["batch"])
    counted = _Counted(engine._runner)
    engine.set_adapter(adapter)  # read and checked once, outside the clock
    engine.set_adapter(None)
    rate = gflops()
    asked = {c.name: [c] for c in make_candidates(task, few_shot=SHOTS, tuned=True)}
    for name in FREE:
        asked[f"{name}_both"] = [*asked[name], *asked[f"{name}_constrained"]]
    asked = {name: asked[name] for kind in wish["kinds"] for name in KINDS[kind]}
    costs: dict[str, Any] = {}
    for name, candidates in asked.items():
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder) / "rows.jsonl")
            engine._runner.forget()
            costs[name] = measured(
                lambda c=candidates, j=journal: run(task, c, bench, j), wish["rows"]
            )
            for one in candidates:
                right = sum(journal.get(one.name, row.id).text == row.answer for row in task.rows)
                costs[name][f"right_{one.mode}"] = round(right / len(task.rows), 3)
        print(name, costs[name], file=sys.stderr, flush=True)
    spent = sum(cost["cpu_s_row"] for cost in costs.values()) * wish["rows"]
    return {
        "candidates": costs,
        "peak_mb": round(common.peak_memory_mb()),
        "floor_share": round(counted.flops / (rate * 1e9) / spent, 3),
        "gflops_cpu_s": rate,
    }


class _Counted:
    """Counts the FLOPs of the matrix products that a Runner's passes ask for."""

    def __init__(self, runner: Any) -> None:
        config = runner.model.config
        wide, inner, layers = (
            config.hidden_size, config.intermediate_size, config.num_hidden_layers
        )  # fmt: skip
        narrow = wide * config.num_key_value_heads // config.num_attention_heads
        self._linear = 2 * layers * (2 * wide * wide + 2 * wide * narrow + 3 * wide * inner)
        self._head, self._pair = 2 * wide * config.vocab_size, 4 * layers * wide
        self.flops = 0.0
        stream = runner.stream

        def counted(batch: Any, tokens: Any, *, keep: Any = None) -> Any:
            prefix = batch.slots.prefix[0][0].shape[1]
            kept = len(tokens.ids) if keep is None else len(keep)
            each = self._linear + self._pair * prefix
            self.flops += len(tokens.ids) * each + kept * self._head
            return stream(batch, tokens, keep=keep)

        runner.stream = counted


def gflops() -> float:
    """Return GFLOPs a processor second of a large fp32 matrix product of the model's width."""
    import torch

    one, other = torch.randn(1024, 576), torch.randn(576, 1536)
    times = []
    for _ in range(8):
        started = time.process_time()
        for _ in range(10):
            one @ other
        times.append(time.process_time() - started)
    return round(10 * 2 * 1024 * 576 * 1536 / min(times[2:]) / 1e9, 1)


def measured(action: Any, rows: int) -> dict[str, Any]:
    """Return the cost a row of an action over `rows` rows."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "rows": rows,
        "s_row": round(wall / rows, 4),
        "cpu_s_row": round(processor / rows, 4),
        "rows_s": round(rows / wall, 2),
    }


def plain(wish: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers' generate costs for the free candidates."""
    import torch

    from tutelage.evaluation.candidates import make_candidates, prompt_for
    from tutelage.evaluation.runner import batches
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers_load import load_model, load_tokenizer
    from tutelage.inference.transformers_render import end_ids, render

    source = locate_model("demo")
    tokenizer = load_tokenizer(source)
    base = load_model(source)
    tuned = load_model(source, adapter=Path(wish["adapter"]))
    _, task = task_of(wish["rows"], lambda text: len(tokenizer(text)["input_ids"]))
    costs: dict[str, Any] = {}
    for candidate in make_candidates(task, few_shot=SHOTS, tuned=True, answers="free"):
        model: Any = tuned if candidate.adapter else base
        groups = [
            [render(tokenizer, prompt_for(candidate, row, task).messages).prompt_ids for row in g]
            for g in batches(task.rows, wish["batch"])
        ]
        settings = {
            "max_new_tokens": task.decoding.max_tokens, "do_sample": False,
            "eos_token_id": list(end_ids(tokenizer)), "pad_token_id": tokenizer.eos_token_id,
        }  # fmt: skip

        def action(groups: Any = groups, model: Any = model, settings: Any = settings) -> None:
            kept = Prefix(model, groups) if wish["side"] == "generate_prefix" else None
            for group in groups:
                width = max(map(len, group))
                ids = torch.full((len(group), width), settings["pad_token_id"])
                seen = torch.zeros_like(ids)
                for i, row in enumerate(group):
                    ids[i, width - len(row) :] = torch.tensor(row)
                    seen[i, width - len(row) :] = 1
                with torch.inference_mode():
                    if kept is None:
                        model.generate(ids, attention_mask=seen, **settings)
                    else:
                        kept.generate(group, settings)

        costs[candidate.name] = measured(action, wish["rows"])
    return {"candidates": costs, "peak_mb": round(common.peak_memory_mb())}


class Prefix:
    """The instructions' keys and values, copied for every batch as transformers' guide does."""

    def __init__(self, model: Any, groups: list[list[list[int]]]) -> None:
        import torch
        from transformers import DynamicCache

        from tutelage.inference.transformers_cache import common_prefix

        rows = [row for group in groups for row in group]
        self._model, self._shared = model, rows[0][: common_prefix(rows)]
        self._cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(torch.tensor([self._shared]), past_key_values=self._cache, use_cache=True)

    def generate(self, group: list[list[int]], settings: dict[str, Any]) -> None:
        """Write the answers of one batch. Padding stands between the prefix and a row's own."""
        import torch

        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(group))
        start = len(self._shared)
        width = max(map(len, group)) - start
        ids = torch.full((len(group), width), settings["pad_token_id"])
        seen = torch.zeros_like(ids)
        for i, row in enumerate(group):
            own = row[start:]
            ids[i, width - len(own) :] = torch.tensor(own)
            seen[i, width - len(own) :] = 1
        front = torch.tensor([self._shared]).expand(len(group), -1)
        self._model.generate(
            torch.cat([front, ids], dim=1),
            attention_mask=torch.cat([torch.ones_like(front), seen], dim=1),
            past_key_values=cache, **settings,
        )  # fmt: skip


def train(wish: dict[str, Any]) -> dict[str, Any]:
    """Train a LoRA for a few steps and save it in the adapter's folder."""
    import torch

    from tutelage.evaluation.candidates import Candidate, prompt_for
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers_load import load_model, load_tokenizer
    from tutelage.inference.transformers_render import render
    from tutelage.training.adapters import attach_lora
    from tutelage.training.prefix_tree import Row
    from tutelage.training.recipe import Recipe
    from tutelage.training.shared_step import SharedStep

    source = locate_model("demo")
    tokenizer = load_tokenizer(source)
    _, task = task_of(1, lambda text: len(tokenizer(text)["input_ids"]))
    model = attach_lora(load_model(source), Recipe(rank=16, alpha=32.0, seed=7)).train()
    step, draw = SharedStep(model), random.Random(3)
    pool = draw.sample(list(task.train), TRAIN_ROWS)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    losses = []
    for _ in range(wish["steps"]):
        rows = []
        for example in draw.sample(pool, TRAIN_BATCH):
            turns = prompt_for(Candidate("", ""), example, task).messages
            made = render(tokenizer, turns, answer=example.answer)
            start = len(made.prompt_ids)
            weights = [0.0] * start + [1.0] * len(made.answer_ids)
            rows.append(Row(example.id, tuple(made.ids), tuple(weights), start))
        losses.append(step(rows, TRAIN_BATCH).loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.save_pretrained(wish["adapter"])
    return {"losses": losses}


if __name__ == "__main__":
    main()
