"""Labels for Parquet files of any size: Ray Data, with one exported classifier in each worker. It needs no dhrd_hf.

    pip install "ray[data]" transformers torch
    python examples/predict_with_ray.py --model my-classifier --data texts.parquet --output labelled --workers 2
    python examples/predict_with_ray.py ... --address ray://head:10001 --workers 64 --gpus-per-worker 1

--output is a new folder of Parquet files: the columns of the data, `predicted_label`, and a `probability_LABEL` for each label.
The rows keep their order in the files in the order of their names. A worker that dies is started again by Ray, and what it held,
at most --rows-per-batch rows, is classified again. A row without a text has no label. For one label a
row; the other kinds are `dhrd predict`'s.
"""

import argparse
from string import Formatter

import ray
from ray.data import ActorPoolStrategy, DataContext, SaveMode


class Classifier:
    """A stock classifier, which reads a row as it was trained to: its config has the prompt, its tokenizer the limit."""

    def __init__(self, model: str):
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForSequenceClassification.from_pretrained(model).eval().to(self.device)
        self.prompt = getattr(self.model.config, "prompt_template", None) or "{text}"
        kind, labels = self.model.config.problem_type, self.model.config.num_labels
        if kind not in (None, "single_label_classification") or labels == 1:
            raise SystemExit(
                f"{model} is no classifier of one label a row ({kind}, {labels} outputs): use dhrd predict"
            )

    def __call__(self, batch):
        values = batch[[name for _, name, _, _ in Formatter().parse(self.prompt) if name]]
        is_text = values.notna().all(axis=1) & values.astype(str).apply(lambda it: it.str.strip() != "").any(axis=1)
        texts = [self.prompt.format(**row) for row in values.to_dict("records")]
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # alike lengths beside each other
        found = self.torch.empty(len(texts), self.model.config.num_labels)
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            inputs = self.tokenizer([texts[i] for i in part], truncation=True, padding=True, return_tensors="pt")
            with self.torch.inference_mode():
                found[part] = self.model(**inputs.to(self.device)).logits.float().softmax(-1).cpu()
        names = self.model.config.id2label
        found[self.torch.tensor(~is_text.to_numpy())] = self.torch.nan
        labels = [names[int(index)] if known else None for index, known in zip(found.argmax(-1), is_text, strict=True)]
        batch["predicted_label"] = labels
        batch = batch.astype({"predicted_label": "string"})  # also where each is None
        for index, name in names.items():
            batch[f"probability_{name}"] = found[:, index].numpy()
        return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder that every worker can read, or Hub id, of an export")
    parser.add_argument("--data", required=True, help="Parquet file or folder, also of s3:// and the like")
    parser.add_argument("--output", required=True, help="folder for the labelled rows")
    parser.add_argument("--address", help="of a Ray cluster; without it Ray is started on this machine")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gpus-per-worker", type=float, default=0)
    parser.add_argument("--rows-per-batch", type=int, default=1024)
    parser.add_argument("--rows-per-file", type=int, default=100_000)
    args = parser.parse_args()
    ray.init(address=args.address or "local")
    DataContext.get_current().execution_options.preserve_order = True
    rows = ray.data.read_parquet(args.data)
    # Ray's own blocks are of 128 MB: a worker would hold so much, and others wait.
    rows = rows.repartition(target_num_rows_per_block=args.rows_per_batch)
    rows = rows.map_batches(
        Classifier,
        fn_constructor_args=(args.model,),
        batch_format="pandas",
        batch_size=args.rows_per_batch,
        compute=ActorPoolStrategy(size=args.workers),
        num_gpus=args.gpus_per_worker,
    )
    rows.write_parquet(args.output, mode=SaveMode.ERROR, min_rows_per_file=args.rows_per_file)


if __name__ == "__main__":
    main()
