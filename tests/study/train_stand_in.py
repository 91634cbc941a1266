"""Stands in for `dhrd train`: reads its options, and writes the files that the runner reads, within a moment."""

import json
import os
import sys
import time
from pathlib import Path


def options(words):
    found, name = {}, None
    for word in words:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = []
        else:
            found[name].append(word)
    return {name: values[0] if values else True for name, values in found.items()}


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def wait_at(moment):
    """Wait there while the study's folder has such a file."""
    while Path(f"hold-{moment}").exists():
        Path(f"at-{moment}").touch()
        time.sleep(0.01)


def meet(several):
    """Wait until so many of us are there, or none comes any more; how many there were."""
    if several == 1:
        return 1
    Path("there").mkdir(exist_ok=True)
    (Path("there") / str(os.getpid())).touch()
    deadline = time.time() + 1
    most = 0
    while most < several and time.time() < deadline:
        most = max(most, len(list(Path("there").iterdir())))
        time.sleep(0.01)
    time.sleep(0.1)
    (Path("there") / str(os.getpid())).unlink()
    return most


def main():
    given = options(sys.argv[1:])
    run = Path(given["output_dir"])
    wait_at("starting")
    run.mkdir(parents=True, exist_ok=True)
    beside = meet(int(given.pop("meet", 1)))
    about = {"parent": os.getppid(), "beside": beside, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    with open("started.log", "a") as file:  # in the study's folder
        file.write(json.dumps(given | about) + "\n")
    (run / "model.safetensors").write_bytes(b"0" * 1000)
    while Path("hold").exists():
        time.sleep(0.01)
    wait_at("training")
    if given["seed"] == "7":
        print("some noise")
        print("dhrd: error: seed 7 brings bad luck", file=sys.stderr)
        print("more noise")
        sys.exit(2)
    train, dev = read(given["train_data"]), read(given["eval_data"])
    right = 0.5 + 0.1 * float(given["alpha"])
    said, label = [], given.get("label_column", "label")
    for place, row in enumerate(dev):
        other = next(each[label] for each in dev if each[label] != row[label])
        answer = row[label] if place < right * len(dev) else other
        said.append({"id": row["id"], label: row[label], "predicted_label": answer, "probabilities": {}})
    Path(given["predictions"]).write_text("".join(json.dumps(row) + "\n" for row in said))
    accuracy = sum(row[label] == row["predicted_label"] for row in said) / len(said)
    files = {
        "train_results": {"train_runtime": 2.0, "train_samples_per_second": len(train) / 2},
        "eval_results": {"eval_accuracy": accuracy, "eval_loss": 0.5, "eval_runtime": 0.25},
        "trainer_state": {"log_history": [{"epoch": 1.0, "loss": 1.0}, {"epoch": 1.0, "eval_accuracy": 0.5}]},
    }
    for name, content in files.items():
        (run / f"{name}.json").write_text(json.dumps(content))
        wait_at("writing")


main()
