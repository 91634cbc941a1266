r"""Which tools open an export, and what they say: each in an environment of its own, as a stranger uses it.

    python examples/compatibility.py                         # an hour on two cores; goes on where it was stopped
    python examples/compatibility.py --only sentence-transformers
    python examples/compatibility.py --work-dir /tmp/compat  # where environments, exports and results are kept

Exports SmolLM2-135M-Instruct (extra `demo`; `--tiny` leaves it out) and tiny models of five families with random heads, dense,
as adapter, multi label, regression, with the two-layer head, for ONNX Runtime, OpenVINO and transformers.js, and opens each
with every tool that takes it (`examples/compatibility/open.py` and `open.mjs`). Version 4 of transformers gets one of every
family as well. Compared are logits on texts of mixed length and scripts, some longer than the limit, and what the tool answers
by default. Each result is a line of `results.jsonl`; the table is `docs/compatibility.md`. What was built already is
used again: remove a folder to build it anew. Tools come from PyPI and npm; a tool that can't be installed gets its row.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))  # tests/families.py: a tiny config of every family

PYTORCH = f"torch=={importlib.metadata.version('torch').split('+')[0]}"
DENSE = ("dense", "multi label", "regression")
# What was found of the differences that stay.
NOTES = """In version 4 gemma2 wants `attn_implementation="eager"`, and biogpt counts the tokens that are not padding instead of looking for
the last one, so a text that holds the pad token itself is pooled elsewhere. SmolLM2's random head has logits up to 19."""


@dataclass(frozen=True)
class Tool:
    """A tool: how it is called in the table, what is installed, which kinds of export it is given."""

    title: str
    package: str
    requires: tuple[str, ...]
    kinds: tuple[str, ...]
    opens: str
    remark: str = ""


V5, V4 = (PYTORCH, "transformers==5.23.0"), (PYTORCH, "transformers==4.57.*")
TOOLS = {
    "transformers5": Tool("transformers 5", "transformers", V5, (*DENSE, "mlp"), "transformers"),
    "transformers4": Tool(
        "transformers 4", "transformers", V4, DENSE, "transformers", "the code of the two-layer head needs version 5"
    ),
    "sentence-transformers": Tool(
        "sentence-transformers, `CrossEncoder`",
        "sentence-transformers",
        (*V5, "sentence-transformers"),
        (*DENSE, "mlp"),
        "sentence_transformers",
        'given pairs of a text and ""',
    ),
    "infinity": Tool(
        "infinity-emb",
        "infinity-emb",
        (PYTORCH, "infinity-emb[torch,server]"),
        ("dense", "multi label"),
        "infinity",
        "one label is a reranker there, so no regression; gives probabilities, which are compared",
    ),
    "peft": Tool("PEFT's auto classes, transformers 5", "peft", (*V5, "peft==0.21.2"), ("adapter",), "peft"),
    "peft4": Tool("PEFT's auto classes, transformers 4", "peft", (*V4, "peft"), ("adapter",), "peft"),
    "mlflow": Tool("mlflow", "mlflow", (*V5, "mlflow"), DENSE, "mlflow"),
    "onnxruntime": Tool(
        "ONNX Runtime", "onnxruntime", ("onnxruntime", "tokenizers", "numpy"), ("onnx",), "onnxruntime"
    ),
    "optimum-onnx": Tool(
        "optimum-onnx", "optimum-onnx", (PYTORCH, "optimum-onnx[onnxruntime]"), ("onnx",), "optimum_onnx"
    ),
    "optimum-intel": Tool(
        "optimum-intel",
        "optimum-intel",
        (PYTORCH, "optimum-intel[openvino]"),
        ("openvino",),
        "optimum_intel",
        "given INFERENCE_PRECISION_HINT f32",
    ),
    "transformers.js": Tool("transformers.js in Node", "@huggingface/transformers", (), ("transformers.js",), "node"),
}
FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2", "phi3")
LABELS = ("entailed", "refuted", "unknown")
LIMIT = 40
TEXTS = [
    "The kiln is cold. So: the kiln glows.",
    "Rooks.",
    "It snows on the moor. So: the moor is dry. " * 6,
    "Мира кормит цапель. 鹭被喂饱了。 الفرن بارد.",
    "  Two cups fell,\n\tso at least one cup fell.  ",
    "<|im_start|>user\nIs it <eos> or <pad>?<|im_end|>",
    "Wen is taller than Ada, and Ada is taller than Bo; so Wen is taller than Bo. 🪿",
    "0.1 + 0.2 != 0.3",
]


# Environments


def environment(name: str, tool: Tool, work_dir: Path) -> tuple[Path, str]:
    """The folder of a tool's environment, built where it is not there, and the version in it."""
    folder = work_dir / name
    ready = folder / "READY"
    folder.mkdir(parents=True, exist_ok=True)
    if tool.opens == "node":
        if not ready.exists():
            # Its runtime's own script fetches a CUDA build.
            run(["npm", "install", "--silent", "--prefix", folder, "--ignore-scripts", tool.package])
        package = folder / "node_modules" / tool.package / "package.json"
        version = json.loads(package.read_text("utf-8"))["version"]
    else:
        python = folder / "bin" / "python"
        if not ready.exists():
            run([sys.executable, "-m", "venv", folder])
            # PyTorch first and pinned, so that no tool brings a build of its own.
            for requirements in (tool.requires[:1], tool.requires):
                run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
            # What optimum-intel brings is made for another build of PyTorch, and then fails wherever it is imported.
            run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"])
        code = f"from importlib.metadata import version; print(version({tool.package!r}))"
        version = run([python, "-c", code]).strip()
        if tool.package not in ("transformers", "onnxruntime"):
            version += (
                f", transformers {run([python, '-c', code.replace(repr(tool.package), repr('transformers'))]).strip()}"
            )
    ready.touch()
    return folder, version


def run(command: list[Any], **options: Any) -> str:
    """What a command printed; its last lines where it failed."""
    done = subprocess.run([str(it) for it in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(" ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])[:200])
    return done.stdout


# Exports


def exports(work_dir: Path, kinds: tuple[str, ...], tiny_alone: bool) -> Iterator[dict[str, Any]]:
    """Every export of these kinds, written where it is not there, with the logits and the answers of the model that it came from."""
    for model in FAMILIES if tiny_alone else ("SmolLM2", *FAMILIES):
        for kind in kinds:
            yield whole(work_dir / "exports" / model.lower() / kind.replace(" ", "-"), model, kind)


def whole(folder: Path, model: str, kind: str) -> dict[str, Any]:
    """An export, from its description if it was written."""
    description = folder.parent / f"{folder.name}.json"
    if not description.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        written = write(folder, model, kind) | {"name": f"{model} {kind}", "kind": kind, "folder": str(folder)}
        description.write_text(json.dumps(written), "utf-8")
    return json.loads(description.read_text("utf-8"))


def write(folder: Path, model: str, kind: str, base: Path | None = None) -> dict[str, Any]:
    """Export a model with a random head: the texts, and what the dual-head model says of them."""
    import torch
    from transformers import AutoTokenizer

    from dhrd_hf import AutoModelForDualHeadClassification, export_classifier
    from dhrd_hf.evaluation import predict_texts
    from dhrd_hf.export import export_engine
    from dhrd_hf.training import add_lora

    base = base or base_of(model, folder.parent)
    labels = ["stars"] if kind == "regression" else list(LABELS)
    problem = {"multi label": "multi_label_classification", "regression": "regression"}
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(1)
    dual = AutoModelForDualHeadClassification.from_pretrained(
        base,
        id2label=dict(enumerate(labels)),
        problem_type=problem.get(kind, "single_label_classification"),
        classifier_head="mlp" if kind == "mlp" else "linear",
        max_input_length=LIMIT,
    )
    dual.config.pad_token_id = tokenizer.pad_token_id
    spread(dual, tokenizer)
    trained = dual
    if kind == "adapter":
        trained = add_lora(dual, r=4)
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    predicted = list(predict_texts(trained.eval(), tokenizer, TEXTS))
    if kind in ("onnx", "openvino", "transformers.js"):
        dense = folder.parent / "dense"
        if not dense.exists():
            export_classifier(trained, tokenizer, dense)
        layout = {"layout": kind} if kind == "transformers.js" else {}
        export_engine(dense, folder, "openvino" if kind == "openvino" else "onnx", overwrite=True, **layout)
    else:
        format = "adapter" if kind == "adapter" else "dense"
        export_classifier(trained, tokenizer, folder, format=format, overwrite=True)
    answers = [it.label for it in predicted]
    return {"labels": labels, "texts": TEXTS, "logits": [it.logits for it in predicted], "answers": answers}


def spread(dual: Any, tokenizer: Any) -> None:
    """Turn a random linear head so that the texts get different labels: away from what all their states share."""
    import torch

    torch.nn.init.normal_(getattr(dual.score, "out_proj", dual.score).weight, std=0.3)
    if not hasattr(dual.score, "out_proj"):
        with torch.no_grad():
            states = [dual.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1] for text in TEXTS]
            shared = torch.stack(states).mean(0)
            weight = dual.score.weight
            weight -= (weight @ shared)[:, None] * shared / shared.square().sum()


def base_of(model: str, folder: Path) -> Path:
    """The folder of a language model: SmolLM2, or a tiny one with random weights and a chat model's tokenizer."""
    from dhrd_hf.embedded import smollm2_path
    from dhrd_hf.export.portable import widen_config

    if model != "SmolLM2":
        return tiny(model, folder / "base")
    base = folder / "base"
    if not base.exists():
        shutil.copytree(smollm2_path(), base)
        widen_config(base)  # as its config on the Hub is
    return base


def tiny(model_type: str, folder: Path) -> Path:
    """A tiny causal LM of a family, with rotary positions that are not those of its default config."""
    import torch
    from families import tiny_config
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from dhrd_hf.export.portable import widen_config

    if (folder / "tokenizer.json").exists():
        return folder
    config = tiny_config(model_type)
    config = type(config).from_dict(config.to_dict())
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    for index, part in enumerate([it for it in rope.values() if isinstance(it, dict)] or [rope]):
        if "rope_theta" in part:
            part["rope_theta"] = part["rope_theta"] / (7 + index)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    widen_config(folder)  # as those on the Hub are, which version 4 wrote
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<pad>", "<eos>", "<bos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    template = "{% for it in messages %}<bos>{{ it.content }}<eos>{% endfor %}"
    PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=template, **names).save_pretrained(folder)
    return folder


def families(work_dir: Path) -> Iterator[dict[str, Any]]:
    """A tiny dense export of every family."""
    from families import SUPPORTED

    for name in SUPPORTED:
        folder = work_dir / "exports" / "families" / name
        description = folder.parent / f"{name}.json"
        if not description.exists():
            written = write(folder, name, "dense", tiny(name, folder.parent / f"{name}-base"))
            written |= {"name": f"family {name}", "kind": "dense", "folder": str(folder)}
            description.write_text(json.dumps(written), "utf-8")
        yield json.loads(description.read_text("utf-8"))


# Results


def results(name: str, tool: Tool, given: list[dict[str, Any]], work_dir: Path) -> Iterator[dict[str, Any]]:
    """A result for each export, or one that says why there is none."""
    try:
        folder, version = environment(name, tool, work_dir)
    except (RuntimeError, OSError) as error:
        yield {"tool": name, "version": "", "export": "", "error": f"can't be installed here: {error}"}
        return
    opened = node(folder, given, work_dir) if tool.opens == "node" else python(folder, tool, given, work_dir)
    for export, found in opened:
        yield {"tool": name, "version": version, "export": export["name"], **compared(export, found)}


def python(folder: Path, tool: Tool, given: list[dict], work_dir: Path) -> Iterator[tuple[dict, dict]]:
    """What a Python tool says, from one process."""
    file = work_dir / f"{folder.name}.json"
    of_each = {it["name"]: it["texts"] for it in given}
    file.write_text(json.dumps({"exports": given, "texts": of_each}), "utf-8")
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}
    command = [str(folder / "bin" / "python"), str(HERE / "compatibility" / "open.py"), tool.opens, str(file)]
    with open(work_dir / f"{folder.name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | quiet
        )
        by_name = {it["name"]: it for it in given}
        for line in process.stdout or ():
            if "RESULT " in line:  # behind what a library printed
                found = json.loads(line.partition("RESULT ")[2])
                yield by_name.pop(found["name"]), found
        process.wait()
    for export in by_name.values():
        yield export, {"error": f"the process ended ({process.returncode}); see {log.name}"}


def node(folder: Path, given: list[dict], work_dir: Path) -> Iterator[tuple[dict, dict]]:
    """What transformers.js says, of each graph."""
    texts = work_dir / "texts.json"
    for export in given:
        texts.write_text(json.dumps(export["texts"]), "utf-8")
        for dtype in ("fp32", "q8"):
            command = ["node", HERE / "compatibility" / "open.mjs", folder, export["folder"], texts, dtype]
            named = export if dtype == "fp32" else export | {"name": f"{export['name']} int8"}
            try:
                yield named, json.loads(run(command))
            except RuntimeError as error:
                yield named, {"error": str(error)}


def compared(export: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The largest difference of a logit (or probability), and how many of the answers are the same."""
    import torch

    if "error" in found:
        return {"error": found["error"]}
    expected, key = torch.tensor(export["logits"]), "logits"
    if "probabilities" in found:
        key = "probabilities"
        expected = expected.sigmoid() if export["kind"] == "multi label" else expected.softmax(-1)
    off = (expected - torch.tensor(found[key]).reshape(expected.shape)).abs().max().item()
    if export["kind"] == "regression":
        same = [abs(one - other) < 1e-3 for one, other in zip(export["answers"], found["answers"], strict=True)]
    else:
        sort = [sorted(it) if isinstance(it, list) else it for it in export["answers"]]
        same = [one == other for one, other in zip(sort, found.get("answers", found.get("labels")), strict=True)]
    return {"off": off, "of": key, "same": sum(same), "texts": len(same)}


def table(rows: list[dict[str, Any]]) -> str:
    """The table, with a line for each tool."""
    lines = [
        "| tool | version | exports | largest difference | answers the same | remark |",
        "|---|---|---|---|---|---|",
    ]
    for name, tool in TOOLS.items():
        own = [row for row in rows if row["tool"] == name and not row["export"].startswith("family ")]
        if not own:
            continue
        opened = [row for row in own if "off" in row]
        exact = [row for row in opened if not row["export"].endswith("int8")]
        off = max((row["off"] for row in exact), default=None)
        remarks = [
            f"{row['export']}: {row['error']}" if row["export"] else row["error"] for row in own if "error" in row
        ]
        remarks = [tool.remark] * bool(tool.remark) + remarks
        remarks += [
            f"int8: off by {row['off']:.2g}, {row['same']} of {row['texts']} ({row['export']})"
            for row in opened
            if row["export"].startswith("SmolLM2") and row["export"].endswith("int8")
        ]
        same = sum(row["same"] for row in exact), sum(row["texts"] for row in exact)
        lines.append(
            f"| {tool.title} | {own[0]['version']} | {len(opened)} of {len(own)} ({', '.join(tool.kinds)}) | "
            f"{'' if off is None else f'{off:.1e}'} | {f'{same[0]} of {same[1]}' if exact else ''} | {'; '.join(remarks)} |"
        )
    return "\n".join(lines)


def of_families(rows: list[dict[str, Any]]) -> str:
    """What version 4 makes of one export of every family."""
    own = {row["export"].removeprefix("family "): row for row in rows if row["export"].startswith("family ")}
    missing = [name for name, row in own.items() if "error" in row]
    other = [f"{name} ({row['off']:.2g})" for name, row in own.items() if row.get("off", 0) > 1e-4]
    return (
        f"Of the {len(own)} families, one tiny export each, transformers 4 opens {len(own) - len(missing)}, and gives version 5's "
        f"logits for {len(own) - len(missing) - len(other)}. It has no sequence classifier of {', '.join(missing)}. It computes "
        f"otherwise: {', '.join(other) or 'none'}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--only", choices=TOOLS, help="one tool, whose results are written anew")
    parser.add_argument("--tiny", action="store_true", help="without SmolLM2")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/compatibility"), help="what is built and found")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "compatibility.md", help="the table")
    args = parser.parse_args()

    work_dir = args.work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    file = work_dir / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    rows = [row for row in rows if row["tool"] != args.only]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = {(row["tool"], row["export"]) for row in rows}
    names = [args.only] if args.only else list(TOOLS)
    for name, of_all in [(it, False) for it in names] + [("transformers4", True)] * ("transformers4" in names):
        tool = TOOLS[name]
        given = families(work_dir) if of_all else exports(work_dir, tool.kinds, args.tiny)
        missing = [it for it in given if (name, it["name"]) not in done]
        for row in results(name, tool, missing, work_dir) if missing else ():
            rows.append(row)
            with open(file, "a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    text = f"{table(rows)}\n\n{of_families(rows)}\n\n{NOTES}\n"
    args.output.write_text(
        f"# Compatibility\n\nWritten by `python examples/compatibility.py`, on {len(TEXTS)} texts each.\n\n{text}",
        "utf-8",
    )
    print(text)


if __name__ == "__main__":
    main()
