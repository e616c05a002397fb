"""Our default plan against the peers' documented default recipes, on six domain cases.

Same model, same rows. The recipes are TRL's LoRA example (trl/scripts/sft.py: rate 2e-4, one
epoch, batch 2 × 8, rank 32, alpha 16, dropout 0.05 on q and v) and LLaMA-Factory's
(examples/train_lora/llama3_lora_sft.yaml: rate 1e-4, three epochs, cosine, warm-up 0.1, batch
1 × 8, rank 8, alpha 16 on all linear layers); both run on TRL's SFTTrainer, to their own end, and
are also measured as they stand when the time that ours took is over. Time is that of the processor
(all threads), which other work on the machine changes little. They get our validation rows to train
on besides. Every cell is kept in bench/.cache/quality, so the bench can be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

CACHE = Path(__file__).resolve().parent / ".cache" / "quality"
SEEDS = (1, 2, 3)
RECIPES: dict[str, dict[str, Any]] = {
    "trl": {
        "learning_rate": 2e-4, "num_train_epochs": 1, "lr_scheduler_type": "linear",
        "warmup_steps": 0.0, "gradient_accumulation_steps": 8, "per_device_train_batch_size": 2,
        "lora": {"r": 32, "lora_alpha": 16, "lora_dropout": 0.05},
    },
    "llamafactory": {
        "learning_rate": 1e-4, "num_train_epochs": 3, "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1, "gradient_accumulation_steps": 8, "per_device_train_batch_size": 1,
        "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"},
    },
}  # fmt: skip
SIDES = ("base", "ours", *RECIPES)
TIED = 0.01  # a case is tied when the means are this close


def main() -> None:
    import common_cases

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="two small cases, two seeds")
    parser.add_argument("--cases", nargs="*", choices=list(common_cases.CASES))
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--minutes", type=float, help="start no further cell after so long")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker), options.threads)))
        return
    quick = options.quick
    cases = options.cases or list(common_cases.QUICK if quick else common_cases.CASES)
    seeds = options.seeds or list(SEEDS[: 2 if quick else None])
    cells = fill(cases, seeds, quick=quick, threads=options.threads, minutes=options.minutes)
    report = summary(cells, threads=options.threads)
    print(json.dumps(report) if options.json else common.table(report["rows"]))
    if not options.json:
        print(report["headline"])


def fill(
    cases: list[str], seeds: list[int], *, quick: bool, threads: int, minutes: float | None
) -> list[dict[str, Any]]:
    """Return all cells, measuring those that are missing; stop starting any after `minutes`."""
    began, found = time.monotonic(), []
    for seed in seeds:
        for case in cases:
            limit = None
            for side in SIDES:
                cell = {"case": case, "side": side, "seed": seed, "quick": quick}
                path = CACHE / f"{case}-{side}-{seed}{'-quick' if quick else ''}.json"
                if not path.exists():
                    if minutes is not None and time.monotonic() - began > 60 * minutes:
                        print(f"{path.stem} is left for the next time", file=sys.stderr)
                        break
                    arguments = ["--worker", json.dumps(cell | {"limit_s": limit})]
                    arguments += ["--threads", str(threads)]
                    made = common.child(__file__, arguments, threads=threads)
                    CACHE.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(made))
                kept = json.loads(path.read_text())
                print({k: v for k, v in kept.items() if not k.endswith("marks")}, file=sys.stderr)
                found.append(kept)
                if side == "ours":
                    limit = kept["seconds"]
    return found


def summary(cells: list[dict[str, Any]], *, threads: int) -> dict[str, Any]:
    """Return the report: one row a case, means over the seeds that have all sides."""
    rows = []
    for case in dict.fromkeys(cell["case"] for cell in cells):
        own = [cell for cell in cells if cell["case"] == case]
        whole = [s for s in {c["seed"] for c in own} if sum(c["seed"] == s for c in own) >= 4]
        if whole:
            rows.append(_row(case, [cell for cell in own if cell["seed"] in whole]))
    headline: dict[str, Any] = {"cases": len(rows)}
    if rows:
        gains = [row["gain"] for row in rows]
        headline |= {
            "wins": sum(gain >= -TIED for gain in gains),
            "mean_gain": round(statistics.mean(gains), 4),
            "forgetting_ratio": round(
                statistics.mean(row["ours_forgets"] for row in rows)
                / max(1e-6, statistics.mean(row["peer_forgets"] for row in rows)),
                3,
            ),
        }
    machine = {**common.machine(), "threads": threads}
    return {"name": "quality", "machine": machine, "rows": rows, "headline": headline}


def _row(case: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one case's means; `gain` is ours over the best peer, at either of its moments.

    Forgetting is the drop in the chance of right answers to general questions plus the log of
    the perplexity ratio, of the peer that scores best; `ours_surely_forgets` the share of our
    runs in which the 95 % interval of either says that something was lost.
    """

    def mean(side: str, key: str) -> float:
        values = [float(cell[key]) for cell in cells if cell["side"] == side and key in cell]
        return statistics.mean(values) if values else float("nan")

    row: dict[str, Any] = {"case": case, "seeds": len({cell["seed"] for cell in cells})}
    row |= {"base": round(mean("base", "score"), 4), "ours": round(mean("ours", "score"), 4)}
    best, forgets = -1.0, 0.0
    for side in RECIPES:
        for moment in ("score", "early_score"):
            value = mean(side, moment)
            row[side + ("_at_our_time" if moment != "score" else "")] = round(value, 4)
            if value > best:
                best, forgets = value, mean(side, moment.replace("score", "forgets"))
    row |= {
        "gain": round(row["ours"] - best, 4),
        "ours_forgets": round(mean("ours", "forgets"), 4),
        "peer_forgets": round(forgets, 4),
        "ours_surely_forgets": mean("ours", "surely_forgets"),
        "ours_s": round(mean("ours", "seconds"), 1),
        "verdict": _verdict(cells),
    }
    return row | {f"{side}_s": round(mean(side, "seconds"), 1) for side in RECIPES}


def _verdict(cells: list[dict[str, Any]]) -> str:
    """Return whether ours is better than the base: rows of one place go together over seeds."""
    from tutelage.evaluation.significance import paired_difference

    ours, base, places = [], [], []
    for cell in cells:
        if cell["side"] == "ours":
            bare = next(c for c in cells if (c["side"], c["seed"]) == ("base", cell["seed"]))
            ours += cell["marks"]
            base += bare["marks"]
            places += range(len(cell["marks"]))
    gain = paired_difference(ours, base, clusters=places)
    said = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no gain shown"
    return f"{said} ({100 * gain.low:+.0f} to {100 * gain.high:+.0f})"


def work(cell: dict[str, Any], threads: int) -> dict[str, Any]:
    """Train and measure one cell."""
    import torch

    from common_cases import CASES

    torch.set_num_threads(threads)
    case = CASES[cell["case"]]
    rows = case.rows(cell["seed"])
    if cell["quick"]:
        rows = (rows[0][:100], rows[1][:20], rows[2][:100])
    folder = CACHE / "runs" / f"{case.name}-{cell['side']}-{cell['seed']}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = {name: cell[name] for name in ("case", "side", "seed")}
    kept["train_rows"], kept["test_rows"] = len(rows[0]) + len(rows[1]), len(rows[2])
    try:
        if cell["side"] == "base":
            return kept | measure(case, rows[2], None)
        if cell["side"] == "ours":
            seconds, adapter, facts = train_ours(case, rows, cell["seed"], folder)
            return kept | facts | {"seconds": seconds} | measure(case, rows[2], adapter)
        seconds, early = train_peer(case, rows, cell, folder)
        found = measure(case, rows[2], folder / "end")
        if early is not None:
            moment = measure(case, rows[2], early)
            found |= {f"early_{name}": value for name, value in moment.items()}
        else:  # its own end came before our time was over
            found |= {f"early_{name}": value for name, value in found.items()}
        return kept | {"seconds": seconds} | found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def train_ours(
    case: Any, rows: Any, seed: int, folder: Path, **overrides: Any
) -> tuple[float, Path, dict[str, Any]]:
    """Train as `tutelage train` does; return its processor seconds, where, and the recipe.

    `overrides` are fields of `train`; by default there are none.
    """
    import yaml

    from tutelage.core.artifact import describe
    from tutelage.data.version import VersionDraft, write_version
    from tutelage.workflows.context import open_context, register
    from tutelage.workflows.training.train import train

    settings: dict[str, Any] = {
        "name": "case", "task": case.task, "model": "demo", "prompt": case.prompt,
        "output": {"labels": list(case.labels)} if case.labels else {},
        "train": {"tracker": "none", "seed": seed, **overrides},
    }  # fmt: skip
    if texts := case.texts():
        (folder / "texts").mkdir()
        for number, text in enumerate(texts):
            (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
        settings["train"]["before"] = [{"method": "cpt", "sources": ["texts/*.txt"]}]
    (folder / "tutelage.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    ctx = open_context(folder)
    splits = dict(zip(("train", "validation", "test"), rows, strict=True))
    version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(splits, {}))
    place = ctx.workspace.relative(version.directory)
    dataset = register(ctx.store, describe("dataset", version.hash, place))
    started = time.process_time()
    artifact = train(ctx, dataset).artifact
    seconds = round(time.process_time() - started, 1)
    recipe = artifact.meta["recipe"]
    names = ("method", "rank", "learning_rate", "epochs", "replay")
    facts = {
        "recipe": {name: recipe[name] for name in names},
        "best_step": artifact.meta["best_step"],
        "share": artifact.meta["interpolation"]["share"],
        "peak_mb": artifact.meta["peak_memory_mb"],
    }
    return seconds, ctx.path_of(artifact), facts


def train_peer(
    case: Any, rows: Any, cell: dict[str, Any], folder: Path
) -> tuple[float, Path | None]:
    """Train a peer's recipe; return its seconds, and where it stood when ours was done."""
    from peft import LoraConfig, get_peft_model

    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_model, load_tokenizer
    from tutelage.training.encode import encode

    source = locate_model("demo")
    tokenizer = load_tokenizer(source)
    recipe = dict(RECIPES[cell["side"]])
    lora = LoraConfig(task_type="CAUSAL_LM", **recipe.pop("lora"))
    encoded = encode([*rows[0], *rows[1]], tokenizer, case.prompt, max_tokens=2048).rows
    data = [
        {
            "input_ids": list(row.ids),
            "labels": [-100] * row.answer_start + list(row.ids[row.answer_start :]),
        }
        for row in encoded
    ]
    model = get_peft_model(load_model(source, dtype="float32"), lora)
    seconds = 0.0
    if texts := case.texts():
        blocks = _blocks(tokenizer, texts)
        first = {**recipe, "num_train_epochs": 1}
        seconds += _sft(model, tokenizer, blocks, first, cell, folder / "first")[0]
    limit = None if cell["limit_s"] is None else cell["limit_s"] - seconds
    took, early = _sft(model, tokenizer, data, recipe, cell | {"limit_s": limit}, folder)
    model.save_pretrained(folder / "end")
    return round(seconds + took, 1), early


def _blocks(tokenizer: Any, texts: list[str], size: int = 512) -> list[dict[str, list[int]]]:
    """Return the texts as blocks of tokens, one after the other, an end token between them."""
    ids = []
    for text in texts:
        ids += [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return [
        {"input_ids": ids[at : at + size], "labels": ids[at : at + size]}
        for at in range(0, len(ids), size)
    ]


def _sft(
    model: Any, tokenizer: Any, data: list[Any], recipe: dict[str, Any], cell: Any, folder: Path
) -> tuple[float, Path | None]:
    """Run TRL's trainer; return its processor seconds, without those of saving early."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    early: list[Path] = []
    lost = [0.0]
    started = [0.0]

    class Early(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            started[0] = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now = time.process_time()
            limit = cell["limit_s"]
            if not early and limit is not None and now - started[0] >= limit:
                early.append(folder / "early")
                model.save_pretrained(early[0])
                lost[0] += time.process_time() - now

    settings = SFTConfig(
        output_dir=str(folder / "trl"), max_grad_norm=1.0, gradient_checkpointing=False,
        bf16=False, use_cpu=True, max_length=None, save_strategy="no", report_to="none",
        disable_tqdm=True, logging_strategy="no", seed=cell["seed"], **recipe,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(data),
        processing_class=tokenizer, callbacks=[Early()],
    )  # fmt: skip
    trainer.train()
    took = time.process_time() - started[0] - lost[0]
    return round(took, 1), early[0] if early else None


def measure(case: Any, test: list[Any], adapter: Path | None) -> dict[str, Any]:
    """Return the mean score on the test rows and what was forgotten."""
    import math

    from tutelage.evaluation import forgetting
    from tutelage.inference.base import Decoding, Prompt
    from tutelage.inference.chat import conversation
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import TransformersGenerator

    engine = TransformersGenerator(locate_model("demo"), adapter=adapter)
    decoding = Decoding(max_tokens=case.max_new_tokens)
    prompts = [Prompt(conversation(r, case.prompt, engine.specials), decoding) for r in test]
    if case.labels:
        odds = engine.score_labels(prompts, case.labels, whole=False)
        given = [case.labels[index] for index in odds.argmax(axis=1)]
    else:
        given = [done.text for done in engine.generate(prompts)]
    scores = [case.score(text, row.answer) for text, row in zip(given, test, strict=True)]
    found: dict[str, Any] = {"score": round(statistics.mean(scores), 4)}
    found["marks"] = [round(score, 4) for score in scores]
    if adapter is None:
        return found
    change = forgetting.compare(_base_marks(), forgetting.measure(engine))
    drop, ratio = change.chance_drop.estimate, change.perplexity_ratio.estimate
    found |= {"chance_drop": round(drop, 4), "perplexity_ratio": round(ratio, 4)}
    found["forgets"] = round(max(0.0, drop) + max(0.0, math.log(ratio)), 4)
    sure = change.chance_drop.low > 0 or change.perplexity_ratio.low > 1
    return found | {"surely_forgets": float(sure)}  # 95 % intervals


def _base_marks() -> Any:
    """Return the base model's marks on the general probes, measured once."""
    from tutelage.evaluation.forgetting import ProbeResult, measure
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import TransformersGenerator

    path = CACHE / "base-probes.json"
    if not path.exists():
        engine = TransformersGenerator(locate_model("demo"))
        CACHE.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure(engine).as_dict()))
        engine.close()
    return ProbeResult(**json.loads(path.read_text()))


if __name__ == "__main__":
    main()
