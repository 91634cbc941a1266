"""The last evaluation of `dhrd train`: its verdict, and what it said of each row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import strict_json, write_whole
from .predict import is_flat, prediction_columns

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from torch import Tensor

    from .. import DualHeadTrainer
    from ..evaluation import LabelledLogits
    from .arguments import TrainArguments

VERDICT_FILE, PAGE = "verdict.json", "report.html"
UNTRAINED = "untrained (zero-shot)"


def check_prediction_columns(own: TrainArguments) -> None:
    """Raise where a column of the predictions would have the name of one that they are to stand beside."""
    from ..evaluation import Prediction

    added = prediction_columns(Prediction(None, error="none"), [], None, is_flat(own.predictions))
    if own.label_column in added or own.label_column.startswith("probability_"):
        raise ValueError(
            f"--predictions would lose the labels, whose column {own.label_column!r} has the name of one of its own: "
            "rename the column."
        )


def evaluate_rows(trainer: DualHeadTrainer, rows: datasets.Dataset, prefix: str = "eval") -> tuple[dict, Tensor]:
    """Evaluate and predict in one pass over the encoded rows; the logits are in their order."""
    output, logits = _predicted(trainer, rows, prefix)
    trainer.log(output.metrics)
    return output.metrics, logits


def _predicted(trainer: DualHeadTrainer, rows: datasets.Dataset, prefix: str) -> tuple[Any, Tensor]:
    import torch

    order = list(range(len(rows)))
    if trainer.args.train_sampling_strategy == "group_by_length":
        lengths = rows["input_length"][:]
        order.sort(key=lambda row: -lengths[row])
    output = trainer.predict(rows.select(order), metric_key_prefix=prefix)
    logits = torch.as_tensor(output.predictions)
    logits[order] = logits.clone()
    return output, logits


def untrained_logits(own: TrainArguments, trainer: DualHeadTrainer, rows: datasets.Dataset | None) -> Tensor | None:
    """What a head that starts from label words says before it is trained; no random number of the training is drawn."""
    import torch

    shared = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # which prepare a model once
    if own.classifier_init != "label_words" or rows is None or shared:
        return None
    with torch.random.fork_rng():
        return _predicted(trainer, rows, "untrained")[1]


def write_verdict(
    own: TrainArguments,
    trainer: DualHeadTrainer,
    train: datasets.Dataset,
    dev: datasets.Dataset,
    logits: Tensor,
    untrained: Tensor | None,
    cut: Sequence[str],
) -> None:
    """Say whether it is any good, and leave the page and its numbers beside the run."""
    import numpy as np

    from ..evaluation import LabelledLogits
    from ..modeling_dhrd import find_dual_head

    config = find_dual_head(trainer.model).config
    if config.problem_type == "regression" or len(dev) < 2:
        return
    labels = np.array(trainer.eval_dataset["labels"][:])
    others = {} if untrained is None else {UNTRAINED: decided(untrained.float().numpy(), labels)}
    found = LabelledLogits(logits.float().numpy(), labels, 0, config.problem_type)
    seen = (train, np.array(trainer.train_dataset["labels"][:]))
    folder = Path(trainer.args.output_dir)
    source = str(folder.resolve()) + "@train" if own.eval_data is None else own.train_data
    if Path(source).exists():
        source = str(Path(source).resolve())
    judged = Judged(config, config.prompt_template or "{text}", dev, found, seen, others)
    print(f"\n{judged.text()}")
    write_whole(folder / VERDICT_FILE, strict_json({**judged.report, "train_data": source}) + "\n")
    data = own.eval_data or f"{own.train_data}, held out"
    page = judged.page(folder.name, data, trainer.state.log_history, cut)
    write_whole(folder / PAGE, page)
    print(f"The page: {folder / PAGE}")


def decided(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What class logits say, in the form of the labels."""
    return (logits > 0).astype(int) if labels.ndim == 2 else logits.argmax(-1)


class Judged:
    """A verdict on the rows of a table, beside what was trained on the rows of another."""

    def __init__(
        self,
        config: Any,
        prompt: str,
        table: datasets.Dataset,
        found: LabelledLogits,
        seen: tuple[datasets.Dataset, np.ndarray] | None,
        others: Mapping[str, np.ndarray],
        seen_prompt: str | None = None,
    ):
        from ..data.prompts import render_rows
        from ..evaluation import baseline_answers, evaluation_report
        from ..evaluation.baselines import some_rows

        self.names, self.found, self.doubts = list(config.id2label.values()), found, None
        self.texts = list(render_rows(prompt, table))
        baselines: dict[str, Any] = {}
        self.cut: list[str] = []
        if seen is not None:
            rows, labels = seen
            self.kept = some_rows(len(rows))
            if len(self.kept) < len(rows):
                self.cut.append(f"The baselines are trained on {len(self.kept)} of {len(rows)} training rows.")
            self.seen = list(render_rows(seen_prompt or prompt, rows.select(self.kept)))
            self.seen_labels = labels[self.kept]
            baselines = baseline_answers(self.seen, self.seen_labels, self.texts)
        self.has_seen = seen is not None
        self.report = evaluation_report(
            found.logits,
            found.labels,
            found.problem_type,
            label_names=self.names,
            others={**baselines, **others},
        )

    def text(self) -> str:
        """The table for a terminal."""
        from ..pages.verdict import verdict_text

        return verdict_text(self.report)

    def page(self, title: str, data: str, history: Sequence[Mapping[str, float]], cut: Sequence[str]) -> str:
        """The page, with the mistakes and the labels in doubt."""
        from ..evaluation import doubtful_labels
        from ..pages.verdict import confident_mistakes, shortened, verdict_page

        one = self.found.labels.ndim == 1
        doubts = None
        if self.has_seen and one:
            doubts = [
                {
                    "row": int(self.kept[it["row"]]),
                    "label": self.names[it["label"]],
                    "other": self.names[it["other"]],
                    "probability": it["probability"],
                    "text": shortened(self.seen[it["row"]]),
                }
                for it in doubtful_labels(self.seen, self.seen_labels)
            ]
        mistakes = confident_mistakes(self.found.logits, self.found.labels, self.names, self.texts) if one else ()
        return verdict_page(
            self.report,
            title=title,
            data=data,
            mistakes=mistakes,
            doubts=doubts,
            history=history,
            cut=[*cut, *self.cut],
        )


def write_logits(path: str, trainer: DualHeadTrainer, found: Mapping[str, tuple[datasets.Dataset, Tensor]]) -> None:
    """Write the logits of evaluation sets, with the labels' names in the file's metadata, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..files import written_whole
    from ..modeling_dhrd import find_dual_head

    columns: dict[str, Any] = {"set": [], "row": [], "label": [], "logits": []}
    for name, (rows, logits) in found.items():
        columns["set"] += [name] * len(rows)
        columns["row"] += range(len(rows))
        columns["label"] += rows["labels"]
        columns["logits"] += logits.float().tolist()
    kinds = (pa.string(), pa.int32(), pa.int32(), pa.list_(pa.float32()))
    arrays = [pa.array(values, kind) for values, kind in zip(columns.values(), kinds, strict=True)]
    names = list(find_dual_head(trainer.model).config.id2label.values())
    with written_whole(path) as unfinished:
        pq.write_table(
            pa.table(arrays, list(columns)).replace_schema_metadata({"labels": json.dumps(names)}), unfinished
        )


def said_of_rows(
    own: TrainArguments, trainer: DualHeadTrainer, dev: datasets.Dataset, logits: Tensor
) -> Iterator[dict[str, Any]]:
    """A row's number or key, its label, and the columns that `dhrd predict` adds."""
    from ..data.joining import key_column
    from ..evaluation.prediction import read_logits
    from ..modeling_dhrd import find_dual_head

    config = find_dual_head(trainer.model).config
    regression = config.problem_type == "regression"
    names = [] if regression else list(config.id2label.values())
    key = key_column(dev.column_names)
    keys = range(len(dev)) if key is None else dev[key]
    flat = is_flat(own.predictions)
    for value, label, prediction in zip(
        keys, dev[own.label_column], read_logits(logits.double(), config), strict=True
    ):
        if regression and isinstance(label, str):
            label = float(label)
        yield {key or "row": value, own.label_column: label} | prediction_columns(prediction, names, None, flat)
