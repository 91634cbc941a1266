"""`dhrd train` as an estimator of scikit-learn."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .files import did_you_mean, whole_folder
from .opening import check_model_name
from .training.options import TrainArguments, TrainOptions, options_of


class DualHeadClassifier(ClassifierMixin, BaseEstimator):
    """A text classifier that learns from labels and rationales, with scikit-learn's interface.

    What comes out is the exported, stock classifier: it is what predicts, and what a pickle holds (as safetensors).

    Example:

    ```python
    >>> from dhrd_hf import DualHeadClassifier
    >>> classifier = DualHeadClassifier(model="smollm2", lora=True, num_train_epochs=3)
    >>> classifier.fit(texts, labels, rationales=rationales).score(more_texts, more_labels)
    0.82
    >>> classifier.export("my-classifier")

    ```

    Args:
        model (`str`, *optional*, defaults to `"smollm2"`): Hub id or folder of a causal LM; as `dhrd train --model`.
        verbose (`bool`, *optional*, defaults to `False`): Show what `dhrd train` prints.
        options (*optional*): Every other option of `dhrd train`, with underscores and its default, `TrainingArguments`' among
            them: `alpha`, `lora`, `prompt`, `classifier_init`, `learning_rate`, `num_train_epochs`, `seed`, ... Not those that
            name tables and folders, which `fit` and `export` do.

    Raises:
        ValueError: on a name that is no option; in `fit`, what `dhrd train` says, and texts, labels or rationales that are none.

    Source: scikit-learn's developer guide; METHOD eqs. 1-4 through `dhrd train`.
    """

    def __init__(self, model: str = "smollm2", *, verbose: bool = False, **options: Any):
        self.model = model
        self.verbose = verbose
        for name, value in _checked(options).items():
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The model, `verbose`, and the options that were given."""
        return {name: value for name, value in vars(self).items() if name[0] != "_" and name[-1] != "_"}

    def set_params(self, **params: Any) -> DualHeadClassifier:
        """Change parameters."""
        _checked({name: value for name, value in params.items() if name not in ("model", "verbose")})
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(
        self, X: Sequence[Any], y: Sequence[Any], rationales: Sequence[str | None] | None = None, groups: Any = None
    ) -> DualHeadClassifier:
        """Train on all rows (`eval_split=0.2` would hold some out, for early stopping).

        Args:
            X (`Sequence[str]`, or of mappings): The texts; rows with columns for a `prompt` that names them, such as a pandas
                `DataFrame`.
            y (`Sequence`): A label each: strings, whole numbers or booleans.
            rationales (`Sequence[str]`, *optional*): Why each label is right; None or empty where there is none.
            groups (`Sequence`, *optional*): With `eval_split`, rows of one group stay on one side.

        Returns:
            `DualHeadClassifier`: itself, with `classes_`.

        Raises:
            ValueError: if lengths differ, or `dhrd train` refuses the rows or an option.
        """
        rows = _rows(X)
        labels = np.asarray(y)
        if labels.ndim != 1 or not len(labels):
            raise ValueError(f"y must be a label for each text, and has the shape {list(labels.shape)}.")
        check_classification_targets(labels)
        for name, values in (("y", labels), ("rationales", rationales), ("groups", groups)):
            if values is not None and len(values) != len(rows):
                raise ValueError(f"There are {len(rows)} texts and {len(values)} {name}.")
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"y has one class, {classes[0]}: a classifier needs two or more classes to tell apart.")
        ids = {label: index for index, label in enumerate(classes.tolist())}
        for row, label in zip(rows, labels.tolist(), strict=True):
            row["label"] = str(classes[ids[label]])
        for name, values in (("rationale", rationales), ("group", groups)):
            for row, value in zip(rows, () if values is None else values, strict=values is not None):
                row[name] = value if name == "group" else value or None
        self._files = self._trained(rows, [str(label) for label in classes], groups is not None)
        self._loaded = None
        self.classes_ = classes
        return self

    def _trained(self, rows: list[dict], names: list[str], grouped: bool) -> dict[str, bytes]:
        from .train import export_run, train

        with tempfile.TemporaryDirectory(prefix="dhrd-hf-") as folder, ExitStack() as said:
            table, export = Path(folder, "rows.jsonl"), Path(folder, "classifier")
            table.write_text("".join(json.dumps(row, default=_plain) + "\n" for row in rows), encoding="utf-8")
            given = {"eval_split": 0, "save_strategy": "no", "disable_tqdm": not self.verbose, **self.get_params()}
            given |= {"train_data": str(table), "output_dir": str(Path(folder, "run")), "export": str(export)}
            del given["verbose"]
            given |= {"group_column": "group"} if grouped and given["eval_split"] else {}
            if not self.verbose:
                said.enter_context(redirect_stdout(io.StringIO()))
                said.enter_context(redirect_stderr(io.StringIO()))
            options = TrainOptions.of(given)
            try:
                check_model_name(options.own.model)
                trainer = train(options, options.training_arguments(), print)
            except (OSError, ImportError, FloatingPointError) as error:
                raise ValueError(str(error)) from error
            export_run(options.own, trainer)
            found = json.loads(Path(export, "config.json").read_text("utf-8"))["id2label"]
            if sorted(found.values()) != sorted(names):
                raise ValueError(f"The labels {', '.join(names)} were read as {', '.join(found.values())}.")
            files = (path for path in export.rglob("*") if path.is_file())
            return {path.relative_to(export).as_posix(): path.read_bytes() for path in files}

    def predict_proba(self, X: Sequence[Any]) -> np.ndarray:
        """Probabilities of the classes.

        Args:
            X (`Sequence[str]`, or of mappings): As for `fit`.

        Returns:
            `np.ndarray` of shape `[rows, classes]`, in the order of `classes_`.

        Raises:
            NotFittedError: before `fit`.
            ValueError: if a text is empty.
        """
        from .data.prompts import render_rows
        from .evaluation import predict_texts

        check_is_fitted(self)
        model, tokenizer = self._opened()
        prompt = getattr(model.config, "prompt_template", None) or "{text}"
        found = list(predict_texts(model, tokenizer, render_rows(prompt, _rows(X))))
        found = [[row.probabilities[str(label)] for label in self.classes_] for row in found]
        return np.array(found).reshape(-1, len(self.classes_))

    def predict(self, X: Sequence[Any]) -> np.ndarray:
        """The most probable class of each text."""
        found = self.predict_proba(X)
        return self.classes_[found.argmax(1)]

    def export(self, output_dir: str | Path) -> None:
        """Write the classifier as a folder that transformers opens without this package, as `dhrd export` does."""
        check_is_fitted(self)
        with whole_folder(output_dir, overwrite=False) as folder:
            self._write(folder)

    def _write(self, folder: Path) -> None:
        for name, content in self._files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _opened(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from .evaluation import load_classifier

            with tempfile.TemporaryDirectory(prefix="dhrd-hf-") as folder:
                self._write(Path(folder))
                self._loaded = load_classifier(folder)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **({"_loaded": None} if "_loaded" in self.__dict__ else {})}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = True
        tags.classifier_tags.poor_score = True  # of a few rows of scikit-learn's checks
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    from .training import DualHeadTrainingArguments

    known = {it.name for cls in (TrainArguments, DualHeadTrainingArguments) for it in fields(cls) if it.init}
    ours = {*options_of("files"), "output_dir", "push_to_hub"}
    for name in options:
        if name in ours or name not in known:
            near = did_you_mean(name, sorted(known - ours), quote="'")
            why = "is what fit or export is given" if name in ours else "is no option of dhrd train"
            raise ValueError(f"{name!r} {why}{near or '.'} All options: dhrd train --help-all")
    return options


def _rows(X: Any) -> list[dict[str, Any]]:
    """Rows with the columns of a prompt; of plain texts the column `text`."""
    if hasattr(X, "to_dict") and hasattr(X, "columns"):
        X = X.to_dict("records")
    if isinstance(X, str) or not hasattr(X, "__len__"):
        raise ValueError(f"X must be a list of texts, and is {type(X).__name__}: put one text in a list.")
    rows = []
    for index, value in enumerate(X):
        if not isinstance(value, (str, Mapping)):
            raise ValueError(
                f"X[{index}] must be a text, or a row with the columns of the prompt, and is {type(value).__name__}."
            )
        rows.append(dict(value) if isinstance(value, Mapping) else {"text": str(value)})
    return rows


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
