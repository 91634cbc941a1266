"""`push_classifier`: an export on the Hugging Face Hub, in one commit or not at all."""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of whichever HTTP client huggingface_hub uses
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import build_hf_headers, parse_ratelimit_headers, validate_repo_id
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .card_facts import CardFacts
from .classifier import export_classifier
from .contract import CONTRACT
from .exported_files import checked_files
from .model_card import card_at
from .verification import check_contract

logger = logging.get_logger(__name__)

Answer = TypeVar("Answer")

_TRIES = 5
_LONGEST_WAIT = 300.0  # seconds; a Hub that asks for more is given up on
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_TOKEN_PAGE = "https://huggingface.co/settings/tokens"
# What transformers and PEFT open by name: left over from an earlier push, it would be opened instead of this one.
_OPENED_BY_NAME = (
    *("config.json", "adapter_config.json", "adapter_model.*", "model*.safetensors", "model.safetensors.index.json"),
    *("pytorch_model*.bin", "pytorch_model.bin.index.json"),
)


@dataclass(frozen=True)
class PushedClassifier:
    repo_id: str
    revision: str
    files: dict[str, int]
    removed: tuple[str, ...] = ()
    commit_url: str | None = None


def push_classifier(
    classifier: str | os.PathLike | nn.Module,
    repo_id: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    format: str = "dense",
    card: CardFacts | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload classifier",
    token: str | bool | None = None,
    dry_run: bool = False,
) -> PushedClassifier:
    """Upload an exported classifier to the Hugging Face Hub, in one commit or not at all.

    The repository and the branch are made if they are missing. The files of the folder are added or replaced. In the
    same commit, weights and configs of an earlier push that the folder lacks (such as old shards, or the
    `adapter_config.json` of an adapter where a dense export follows) are removed from the branch, since transformers
    would open them instead; every other file stays. Hidden files of the folder are not uploaded. The model card goes
    there with the repository's name in its usage snippet, and is made where the folder has none. Before anything is sent,
    the golden texts of the folder's contract are replayed ([`verify_export`]).

    Connection errors, timeouts, rate limits and server errors are tried again a few times, with a growing wait or the
    one that the Hub asks for, and said on the log.

    Example:

    ```python
    >>> from dhrd_hf import push_classifier
    >>> push_classifier("my-classifier", "user/my-classifier").commit_url
    'https://huggingface.co/user/my-classifier/commit/1e6c...'
    >>> from transformers import pipeline  # elsewhere, without dhrd_hf
    >>> pipeline("text-classification", "user/my-classifier")("It rains. So: It is wet.")

    ```

    Args:
        classifier (`str`, `os.PathLike`, or a model as [`export_classifier`] takes): A folder that
            [`export_classifier`] wrote, or a model, which is exported to a temporary folder first.
        repo_id (`str`): The repository, as `"user/name"` or `"organization/name"`.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): The model's tokenizer; only with a model.
        format (`str`, *optional*, defaults to `"dense"`): As in [`export_classifier`]; only with a model.
        card ([`~dhrd_hf.export.CardFacts`], *optional*): What the model card says; as in [`export_classifier`]. By default
            what the model knows itself. Only with a model.
        private (`bool`, *optional*, defaults to `False`): Make the repository private. `False`: as the Hub does by
            default. A public repository is never pushed to with `private=True`.
        revision (`str`, *optional*): The branch; by default `main`. A new one starts from `main`.
        commit_message (`str`, *optional*, defaults to `"Upload classifier"`): The first line of the commit.
        token (`str` or `bool`, *optional*): As in huggingface_hub; by default `HF_TOKEN` or the one of
            `hf auth login`. It is neither stored nor printed.
        dry_run (`bool`, *optional*, defaults to `False`): Check the name and the folder and list the files, without
            network and token.

    Returns:
        `PushedClassifier`: the files with their sizes, what was removed, and the commit's URL.

    Raises:
        ConnectionError: if the Hub can't be reached.
        OSError: if the Hub refuses or fails; `PermissionError` where a token is missing or lacks a right.
        ValueError: if the folder is not an export, or not what its contract says, or the Hub would refuse or refuses the names or the card.
    """
    _check_names(repo_id, revision, commit_message)
    push = partial(
        _push_folder,
        repo_id=repo_id,
        private=private,
        revision=revision,
        commit_message=commit_message,
        token=token,
        dry_run=dry_run,
    )
    if isinstance(classifier, (str, os.PathLike)):
        if tokenizer is not None:
            raise ValueError("A folder has its tokenizer in it: give the folder alone, or a model and its tokenizer.")
        if card is not None:
            raise ValueError("A folder has its model card in it: write it with write_model_card(folder, card).")
        return push(Path(classifier), verify=True)
    if tokenizer is None:
        raise ValueError("A model needs its tokenizer beside it: push_classifier(model, repo_id, tokenizer).")
    with tempfile.TemporaryDirectory() as scratch:
        return push(export_classifier(classifier, tokenizer, Path(scratch) / "export", format, card=card))


def _push_folder(
    folder: Path,
    repo_id: str,
    private: bool,
    revision: str | None,
    commit_message: str,
    token: str | bool | None,
    dry_run: bool,
    verify: bool = False,
) -> PushedClassifier:
    files = checked_files(folder)
    if verify and CONTRACT in files:
        check_contract(folder)
    elif verify:
        logger.warning(f"{folder} has no {CONTRACT}: it is pushed as it is, without a replay. dhrd export writes one.")
    card = card_at(folder, repo_id)
    files["README.md"] = len(card)
    branch = revision or constants.DEFAULT_REVISION
    if dry_run:
        return PushedClassifier(repo_id, branch, files)
    hub = _Hub(repo_id, token)
    hub.ask(f"making {repo_id}", hub.api.create_repo, private=private or None, exist_ok=True)
    if branch != constants.DEFAULT_REVISION:
        hub.ask(f"making the branch {branch}", hub.api.create_branch, branch=branch, exist_ok=True)
    for attempt in itertools.count():
        info = hub.ask(f"reading {repo_id}", hub.api.model_info, revision=branch)
        if private and not info.private:
            raise PermissionError(
                f"{repo_id} exists and is public, and a push does not change that. Make it private in its settings at "
                f"{hub.api.endpoint}/{repo_id}/settings, name another repository, or drop private=True (--private)."
            )
        removed = sorted(
            name
            for name in (sibling.rfilename for sibling in info.siblings or ())
            if name not in files and "/" not in name and any(fnmatch.fnmatchcase(name, p) for p in _OPENED_BY_NAME)
        )
        # New ones at each attempt: they ask the Hub what it has by now, so that a commit whose answer was lost is not
        # made again. Not `upload_folder`, which makes several commits of a large folder.
        added = [CommitOperationAdd(name, card if name == "README.md" else folder / name) for name in files]
        # The requests in here are tried again by huggingface_hub itself.
        hub.ask_once(
            f"uploading to {repo_id}", hub.api.preupload_lfs_files, additions=added, revision=branch, create_pr=False
        )
        try:
            commit = hub.api.create_commit(
                repo_id,
                [*added, *(CommitOperationDelete(name) for name in removed)],
                commit_message=commit_message,
                revision=branch,
                create_pr=False,
                parent_commit=info.sha,
            )
        except (HTTPError, ConnectionError, ValueError) as error:
            hub.wait_or_raise(error, f"committing to {repo_id}", attempt, commit_was_sent=True)
        else:
            return PushedClassifier(repo_id, branch, files, tuple(removed), commit.commit_url)


def _check_names(repo_id: str, revision: str | None, commit_message: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"The Hub has no such names. {error} Type user/name, such as user/my-classifier.") from error
    if repo_id is None or "/" not in repo_id:
        raise ValueError(
            f"The repository {repo_id!r} has no owner. Type user/{repo_id or 'name'}; `hf auth whoami` says who you are."
        )
    if revision is not None and (
        not revision.strip() or re.search(r"\s", revision) or re.fullmatch(r"refs/.*|[0-9a-f]{40}", revision)
    ):
        raise ValueError(f"The revision {revision!r} is no branch that could be pushed to. Type a name, such as v2.")
    if not commit_message.strip():
        raise ValueError("The commit message is empty: the Hub wants one, such as 'Upload classifier'.")


class _Hub:
    """The Hub's API for one repository: asks again where that helps, and tells errors in a line, without the token."""

    def __init__(self, repo_id: str, token: str | bool | None):
        self.repo_id = repo_id
        self._token = _token_to_send(token)
        self.api = HfApi(token=token, library_name="dhrd_hf")

    def ask(self, doing: str, method: Callable[..., Answer], **arguments: Any) -> Answer:
        """Call a method whose requests huggingface_hub makes once."""
        for attempt in itertools.count():
            try:
                return method(self.repo_id, **arguments)
            except (HTTPError, ConnectionError, ValueError) as error:
                self.wait_or_raise(error, doing, attempt)
        raise AssertionError("unreachable")

    def ask_once(self, doing: str, method: Callable[..., Answer], **arguments: Any) -> Answer:
        """Call a method whose requests huggingface_hub tries again itself."""
        try:
            return method(self.repo_id, **arguments)
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            self.wait_or_raise(error, doing, attempt=_TRIES)
            raise

    def wait_or_raise(self, error: Exception, doing: str, attempt: int, commit_was_sent: bool = False) -> None:
        """Wait before another attempt, or raise what is to be said where there is none."""
        seconds = _seconds_to_wait(error, attempt)
        if seconds is not None and attempt + 1 < _TRIES and seconds <= _LONGEST_WAIT:
            logger.warning(
                f"{self._what_happened(error)} while {doing}: trying again in {seconds:.1f} s "
                f"(attempt {attempt + 2} of {_TRIES})."
            )
            time.sleep(seconds)
            return
        told = self._told(error, doing, seconds, commit_was_sent)
        # A server may echo what it was sent, and --debug shows the errors behind an error.
        raise told from (None if any(self._token in str(e) for e in _chain(error)) else error)

    def _told(self, error: Exception, doing: str, seconds: float | None, commit_was_sent: bool) -> Exception:
        error = _behind(error)
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        happened = f"{self._what_happened(error)} while {doing}"
        if commit_was_sent and (status is None or status >= 500):
            outcome = "The new files are all there or none is; to push again does no harm."
        else:
            outcome = "Nothing was committed."
        if isinstance(error, OfflineModeIsEnabled):
            return ConnectionError(f"HF_HUB_OFFLINE is set, so the Hub can't be reached. Unset it. {outcome}")
        if status == 401:
            return PermissionError(
                f"{happened}: it does not accept the token. Make one with the right to write at {_TOKEN_PAGE}, then "
                f"type: hf auth login (or set HF_TOKEN). {outcome}"
            )
        if status == 403:
            return PermissionError(
                f"{happened}: this token may not write there. Name a repository of yours (`hf auth whoami` says who "
                f"you are), or make a token with the right to write at {_TOKEN_PAGE} and type: hf auth login. {outcome}"
            )
        if status == 404:
            return FileNotFoundError(
                f"{happened}: as a model repository of yours it does not exist, so the name is taken by another type "
                f"of repository, or it is someone's private one. Name another. {outcome}"
            )
        if status in (409, 412):
            return OSError(f"{happened}: something else changed it meanwhile. Push again. {outcome}")
        if status == 429:
            when = "in some minutes" if seconds is None else f"in {seconds:.0f} s"
            return OSError(f"{happened}: too many requests. Push again {when}. {outcome}")
        if status is not None and status >= 500:
            return OSError(f"{happened}: the Hub has a problem. Push again later. {outcome}")
        if isinstance(error, HTTPError) and status is None:
            return ConnectionError(
                f"{happened}: {self.api.endpoint} can't be reached. Check the network (and HF_ENDPOINT, HTTPS_PROXY), "
                f"then push again. {outcome}"
            )
        if isinstance(error, ConnectionError):  # of hf_xet, which has no status to go by
            return ConnectionError(
                f"{happened}. Check the network and that the token may write there, then push again. {outcome}"
            )
        if status is not None or isinstance(error, ValueError):
            return ValueError(f"{happened}. {outcome}")
        return OSError(f"{happened}. {outcome}")

    def _what_happened(self, error: Exception) -> str:
        error = _behind(error)
        if isinstance(error, HfHubHTTPError):
            said = f" ({error.server_message})" if error.server_message else ""
            text = f"The Hub answered {error.response.status_code}{said}"
        elif isinstance(error, json.JSONDecodeError):
            text = "The Hub's answer was not JSON"
        else:
            text = str(error) or type(error).__name__
        return " ".join(text.replace(self._token, "<token>").split()).rstrip(".")


def _token_to_send(token: str | bool | None) -> str:
    try:
        found = build_hf_headers(token=token).get("authorization", "").removeprefix("Bearer ")
    except LocalTokenNotFoundError:
        found = ""
    if not found:
        raise PermissionError(
            f"No token for the Hub was found. Make one with the right to write at {_TOKEN_PAGE}, then type: hf auth "
            "login (or set HF_TOKEN)."
        )
    if not re.fullmatch(r"[!-~]+", found):  # it would be quoted in the client's own error
        raise ValueError(
            "The token for the Hub holds a blank or a character that no token has: copy it again from "
            f"{_TOKEN_PAGE}, then type: hf auth login (or set HF_TOKEN)."
        )
    return found


def _seconds_to_wait(error: Exception, attempt: int) -> float | None:
    """How long to wait before asking again; `None` where it would not help."""
    error = _behind(error)
    if isinstance(error, OfflineModeIsEnabled):
        return None
    if isinstance(error, HfHubHTTPError):
        if error.response.status_code not in _TRANSIENT:
            return None
        limit = parse_ratelimit_headers(error.response.headers)
        if error.response.status_code == 429 and limit is not None and limit.remaining == 0:
            return float(limit.reset_in_seconds)
        after = error.response.headers.get("Retry-After", "").strip()
        if after.isdigit():
            return float(after)
    elif not isinstance(error, (HTTPError, ConnectionError, json.JSONDecodeError)):
        return None
    return 2.0**attempt * random.uniform(0.75, 1.25)


def _behind(error: Exception) -> Exception:
    """The error of the request, where huggingface_hub wrapped it to say which file it was."""
    return error.__cause__ if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception) else error


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
