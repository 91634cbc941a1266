r"""How long, and in what memory, `dhrd train` gets from a table to its first step, beside `datasets` reading and tokenising it.

    python examples/benchmarks/start_of_training.py --rows 300000 --kinds jsonl,csv,parquet
    python examples/benchmarks/start_of_training.py --rows 300000 --kinds jsonl --tokenizer MODEL

The rows are made of random words, each a token of a tokenizer that splits at spaces, which costs nearly nothing; or, by
`--tokenizer`, of a real model's. The model is a tiny one, of which nothing is trained. Both ways run in turns, each in a process of
its own, from its start on. Memory is what the process holds itself at most (Linux's RssAnon): pages of mapped files are not in it.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_SEEN = """
import os, sys, threading, time
peak = 0
def watch():
    global peak
    while True:
        with open("/proc/self/status") as file:
            peak = max(peak, next(int(line.split()[1]) for line in file if line.startswith("RssAnon:")))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
def told():
    times = os.times()
    print("\\n" + str({"seconds": time.perf_counter() - started, "cpu": times.user + times.system, "mib": peak / 1024}), flush=True)
    os._exit(0)
model, table, out = sys.argv[1:]
"""
_DATASETS = """
import datasets
from transformers import AutoTokenizer, TrainingArguments
tokenizer = AutoTokenizer.from_pretrained(model)
kind = {"jsonl": "json"}.get(table.rpartition(".")[2], table.rpartition(".")[2])
rows = datasets.load_dataset(kind, data_files=table, split="train", cache_dir=out)
def encode(batch):
    columns = zip(batch["text"], batch["rationale"], batch["label"])
    texts = [f"{text}\\nReasoning:\\n{rationale}\\nFinal Answer:\\n{label}" for text, rationale, label in columns]
    return tokenizer(texts, truncation=True, max_length=512)
rows.map(encode, batched=True, remove_columns=rows.column_names)
told()
"""
_OURS = """
from contextlib import contextmanager
import dhrd_hf.cli.train
importing = dhrd_hf.cli.train.importing
@contextmanager
def then_stop():  # as soon as the command has imported what it trains with
    with importing():
        yield
    import dhrd_hf.training.trainer
    dhrd_hf.training.trainer.DualHeadTrainer.train = lambda *_, **__: told()
dhrd_hf.cli.train.importing = then_stop
command = ["train", "--model", model, "--train-data", table, "--output-dir", out, "--eval-split", "0", "--use-cpu"]
raise SystemExit(dhrd_hf.cli.main(command) or 1)
"""
_WORDS = [f"w{index}" for index in range(2000)]


def write_model(folder: Path, tokenizer_of: str | None) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if tokenizer_of is not None:
        real = AutoTokenizer.from_pretrained(tokenizer_of)
        real.save_pretrained(folder)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(real), pad_token_id=0, **sizes)).save_pretrained(folder)
        return
    words = {word: index for index, word in enumerate(["<pad>", "<unk>", "Reasoning:", "Final", "Answer:", *_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, **sizes)).save_pretrained(folder)


def write_table(path: Path, count: int) -> None:
    def rows():
        rng = random.Random(0)
        for number in range(count):
            text, rationale = (" ".join(rng.choices(_WORDS, k=size)) for size in (60, 20))
            yield {"id": number, "text": text, "rationale": rationale, "label": rng.choice("abc")}

    if path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_generator(rows, cache_dir=str(path.parent / "made")).to_parquet(path)
        return
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, ["id", "text", "rationale", "label"])
            writer.writeheader()
            writer.writerows(rows())
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows())


def measured(code: str, model: Path, table: Path) -> dict[str, float]:
    with TemporaryDirectory(dir=table.parent) as out:
        command = [sys.executable, "-c", _SEEN + code, str(model), str(table), str(Path(out) / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return json.loads(done.stdout.splitlines()[-1].replace("'", '"'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--kinds", default="jsonl,csv,parquet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokenizer", metavar="MODEL", help="Hub id or folder whose tokenizer is taken")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(model, args.tokenizer)
        for kind in args.kinds.split(","):
            peaks = {}
            for rows in (args.rows // 3, args.rows):
                table = Path(folder) / f"{rows}.{kind}"
                write_table(table, rows)
                found = [
                    (measured(_DATASETS, model, table), measured(_OURS, model, table)) for _ in range(args.rounds)
                ]
                said = {"kind": kind, "rows": rows}
                for name in ("seconds", "cpu", "mib"):
                    theirs, ours = zip(*((one[name], other[name]) for one, other in found), strict=True)
                    said |= {f"{name} of datasets": statistics.median(theirs), name: statistics.median(ours)}
                    ratios = sorted(other / one for one, other in zip(theirs, ours, strict=True))
                    said[f"{name} ratio"] = [
                        round(statistics.median(ratios), 2),
                        round(ratios[0], 2),
                        round(ratios[-1], 2),
                    ]
                peaks[rows] = said["mib"]
                print(json.dumps({name: round(it, 1) if isinstance(it, float) else it for name, it in said.items()}))
            fewer, more = sorted(peaks)
            print(
                f"{kind}: {(peaks[more] - peaks[fewer]) * 1024**2 / (more - fewer):.0f} bytes of memory for each row more"
            )


if __name__ == "__main__":
    main()
