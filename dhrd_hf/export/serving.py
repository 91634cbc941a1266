"""`verify_server`: a running server held against the contract of the export that it serves."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import torch
from torch import Tensor

from .contract import Contract, activated
from .replay import Replay, allowed_difference, beside_each_other, row_differences

# Of mixed lengths, so that padding shows; text-embeddings-inference takes 32 at most where nobody raised it.
_BATCH = 8
_NOT_THERE = (404, 405, 501)
_LONGEST_ANSWER = 100_000_000  # bytes; that of a batch with 100,000 labels has half as many
# What an answer of another form ends in where it is read.
_NOT_OF_THE_FORM = (TypeError, KeyError, IndexError, AttributeError, OverflowError)


class _Refused(ValueError):
    def __init__(self, status: int, said: str):
        super().__init__(said)
        self.status = status


# The score of each label, by its name where the server says it.
_Row = list[tuple[str | None, float]]


@dataclass(frozen=True)
class _Protocol:
    """How a kind of server is asked, and where the scores of its rows stand in the answer."""

    name: str
    path: str
    request: Callable[[list[str], Contract], dict[str, Any]]
    rows: Callable[[Any], Any]
    raw: bool = False  # has no other activation than softmax, and gives logits where they are asked for


def _classify(texts: list[str], contract: Contract) -> dict[str, Any]:
    # -1 is vLLM's own limit, without which it refuses longer texts; infinity, which cuts always, reads past it.
    return {"input": texts, "truncate_prompt_tokens": -1}


# vLLM's pooling `ClassificationRequest`, infinity's `ClassifyInput`, text-embeddings-inference's `PredictRequest`, and the
# text-classification task of Inference Endpoints. Two kinds share a path: the answer's form says which it is.
_PROTOCOLS = (
    _Protocol("vLLM", "/classify", _classify, lambda answer: [it["probs"] for it in answer["data"]]),
    _Protocol("infinity", "/classify", _classify, lambda answer: answer["data"]),
    _Protocol(
        "text-embeddings-inference",
        "/predict",
        lambda texts, contract: {
            "inputs": [[text] for text in texts],
            "truncate": True,
            "raw_scores": contract.activation != "softmax",
        },
        lambda answer: answer,
        raw=True,
    ),
    _Protocol(
        "an Inference Endpoint",
        "",
        lambda texts, contract: {"inputs": texts, "parameters": {"top_k": len(contract.labels), "truncation": True}},
        lambda answer: [answer] if isinstance(answer[0], dict) else answer,
    ),
)


class Server:
    """A running classifier: finds out what kind of server it is, and asks it for the probabilities of texts.

    Example:

    ```python
    >>> from dhrd_hf.export import Contract, Server
    >>> server = Server("http://localhost:8000", Contract.read("my-classifier"))
    >>> server.kind, server.probabilities(["It rains."])
    ('vLLM', tensor([[0.0312, 0.9688]]))

    ```

    Args:
        url (`str`): Its address, without the path of a kind of server.
        contract ([`~dhrd_hf.export.contract.Contract`]): Of the export that it serves.
        model (`str`, *optional*): The model's name there; needed where it serves several.
        token (`str`, *optional*): Sent to this address as `Authorization: Bearer`, and never told; a redirect is not followed.
        timeout (`float`, *optional*, defaults to 60): Seconds until a request is given up.

    Raises:
        ConnectionError: if nothing answers.
        ValueError: if it is no address, or no kind of server that classifies texts.
    """

    def __init__(
        self, url: str, contract: Contract, model: str | None = None, token: str | None = None, timeout: float = 60.0
    ):
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query:  # which would be told in errors
            raise ValueError(
                "--server: name the address without a password or a query; a token's variable is --token-env"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a server: type one such as http://localhost:8000")
        if token and not all("!" <= letter <= "~" for letter in token):
            raise ValueError("the server's token holds a blank or a character that no token has: copy it again")
        self.contract, self.model, self.timeout, self._token = contract, model, timeout, token
        self._base = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self.name = self._base
        self.remarks: dict[str, None] = {}
        self._protocol = self._found()

    @property
    def kind(self) -> str:
        """What kind of server it is, and what its clients have to ask for."""
        return self._protocol.name + (", with raw_scores" if self._raw else "")

    @property
    def _raw(self) -> bool:
        return self._protocol.raw and self.contract.activation != "softmax"

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """The probabilities `[N, K]` of texts in the order of the contract's labels; NaN where it names other labels."""
        rest, found = iter(texts), []
        while batch := list(islice(rest, _BATCH)):
            answer = self._ask(self._protocol, batch)
            rows = _rows(self._protocol, answer, len(batch), len(self.contract.labels))
            if rows is None:
                raise ValueError(
                    f"{self.name} ({self.kind}) has answered {len(batch)} texts with {self._told(answer)}"
                )
            self._check_best_labels(answer, rows)
            found += [self._ordered(row) for row in rows]
        scores = torch.tensor(found, dtype=torch.float64).float()
        return self.contract.probabilities(scores) if self._raw else scores

    def _found(self) -> _Protocol:
        probe = next(text for text, it in zip(self.contract.texts, self.contract.golden, strict=True) if it.logits)
        refused: dict[str, str] = {}
        for protocol in _PROTOCOLS:
            if self._path_of(protocol) in refused:
                continue
            try:
                answer = self._ask(protocol, [probe])
            except _Refused as error:
                if error.status in (401, 403):
                    raise
                refused[self._path_of(protocol)] = "" if error.status in _NOT_THERE else str(error)
            else:
                if _rows(protocol, answer, 1, len(self.contract.labels)) is not None:
                    return protocol
        said = next((text for text in refused.values() if text), "none of /classify, /predict and / classifies texts")
        raise ValueError(
            f"{self.name} is no server that is known (vLLM, infinity, text-embeddings-inference, an Inference Endpoint) and "
            f"answers for the {len(self.contract.labels)} labels of the export: {said}"
        )

    def _path_of(self, protocol: _Protocol) -> str:
        return self._base if self._base.endswith(protocol.path) else self._base + protocol.path

    def _ask(self, protocol: _Protocol, texts: list[str]) -> Any:
        body = protocol.request(texts, self.contract)
        if self.model is not None and "input" in body:  # the other protocols serve one model
            body["model"] = self.model
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._path_of(protocol), json.dumps(body).encode(), headers)
        until = time.monotonic() + self.timeout
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
                text = _read(response, until)
        except urllib.error.HTTPError as error:
            raise _Refused(error.code, self._reason(error, until)) from None
        except TimeoutError:
            raise ConnectionError(f"{self.name} has not answered within {self.timeout:g} s") from None
        # urllib's and ssl's are among them.
        except (OSError, ValueError, OverflowError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise ConnectionError(f"{self.name} has not answered within {self.timeout:g} s") from None
            reason = self._told(str(getattr(error, "reason", None) or error))
            raise ConnectionError(
                f"nothing answers at {self.name} ({reason}): start the server, or check --server"
            ) from None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise _Refused(404, f"{self.name} has not answered in JSON, but with {self._told(text[:200])}") from None

    def _reason(self, error: urllib.error.HTTPError, until: float) -> str:
        if error.code in (301, 302, 303, 307, 308):
            return f"{self.name} sends on to {self._told(str(error.headers.get('Location')))}: name that address"
        if error.code in (401, 403):
            hint = "does not accept the token" if self._token else "wants a token: name its variable by --token-env"
            return f"{self.name} {hint} (status {error.code})"
        said = ""
        try:
            answer = json.loads(_read(error, until))
            said = answer.get("error") or answer.get("message") or answer.get("detail") or answer
            said = said.get("message", said) if isinstance(said, dict) else said
        except (ValueError, RecursionError, OSError, AttributeError, http.client.HTTPException):
            pass
        return f"{self.name} answers with status {error.code}{': ' if said else ''}{self._told(said, 300)}"

    def _told(self, value: Any, most: int = 120) -> str:
        """What the server says, as far as it may be shown: in a line, and without the token."""
        text = value if isinstance(value, str) else repr(value)
        text = text.replace(self._token, "<token>") if self._token else text
        text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
        return text if len(text) <= most else text[:most] + "..."

    def _check_best_labels(self, answer: Any, rows: list[_Row]) -> None:
        """vLLM names the best label alone, the others by their place."""
        if self.kind != "vLLM":
            return
        for it, row in zip(answer["data"], rows, strict=True):
            scores = self._ordered(row)
            best = self.contract.labels[max(range(len(scores)), key=scores.__getitem__)]
            if it.get("label") != best:
                self.remarks[f"it calls {self._told(it.get('label'))!r} what the contract calls {best!r}"] = None

    def _ordered(self, row: _Row) -> list[float]:
        labels, scores = self.contract.labels, dict(row)
        if None in scores:
            return [score for _, score in row]
        if scores.keys() == set(labels):
            return [scores[label] for label in labels]
        numbered = [f"LABEL_{index}" for index in range(len(labels))]
        found = self._told(", ".join(sorted(scores)))
        self.remarks[f"its labels are {found}, those of the contract {', '.join(labels)}"] = None
        if scores.keys() == set(numbered):
            return [scores[label] for label in numbered]
        return [float("nan")] * len(labels)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token and the texts to another server."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _read(response: Any, until: float) -> bytes:
    """The whole body: a timeout is of one read, and a server may drip, or send without an end."""
    found = bytearray()
    while part := response.read1(1 << 20):
        found += part
        if time.monotonic() > until:
            raise TimeoutError
        if len(found) > _LONGEST_ANSWER:
            raise ValueError(f"it has answered with more than {_LONGEST_ANSWER:,} bytes")
    if response.length:
        raise http.client.IncompleteRead(bytes(found), response.length)
    return bytes(found)


def _rows(protocol: _Protocol, answer: Any, count: int, labels: int) -> list[_Row] | None:
    """The rows of an answer, of one score for each label; None where it is not of this protocol."""
    try:
        rows = [[_scored(it) for it in row] for row in protocol.rows(answer)]
    except _NOT_OF_THE_FORM:
        return None
    right = all(len(row) == labels and len({label is None for label, _ in row}) == 1 for row in rows)
    return rows if right and len(rows) == count else None


def _scored(it: Any) -> tuple[str | None, float]:
    """A label, where one is named, and its score; JSON has null for what is not finite."""
    label, score = (it["label"], it["score"]) if isinstance(it, Mapping) else (None, it)
    if isinstance(it, Mapping) and not isinstance(label, str) or isinstance(score, bool | str):
        raise TypeError(it)
    return label, float("nan") if score is None else float(score)


def verify_server(server: Server, tolerance: float | None = None, ignore_blanks: bool = False) -> Replay:
    """Send the golden texts of an export's contract to the server that serves it, and compare the probabilities.

    Nothing but these texts is sent. A server's logits are not seen, and neither are its token ids: texts around the limit and
    with special tokens show what it makes of them.

    Example:

    ```python
    >>> from dhrd_hf.export import Contract, Server, verify_server
    >>> server = Server("http://localhost:8000", Contract.read("my-classifier"))
    >>> verify_server(server).faults()
    ['a probability differs by 0.31, 0.01 is allowed: as long as the limit by 0.31 ...']

    ```

    Args:
        server ([`~dhrd_hf.export.serving.Server`]): The server, with the contract.
        tolerance (`float`, *optional*): The largest difference of a probability that passes (of a number, for regression). By
            default 0.01: most servers compute in 16 bits. Half as much again as an int8 export was off when it was written.
        ignore_blanks (`bool`, *optional*, defaults to `False`): Leave out the texts with blanks at an end, which infinity
            strips.

    Returns:
        [`~dhrd_hf.export.replay.Replay`]: what differs, and what may be the reason.

    Raises:
        ConnectionError: if the server does not answer.
        ValueError: if it refuses, or answers in another form.
    """
    contract, texts = server.contract, server.contract.texts
    run = [
        place
        for place, it in enumerate(contract.golden)
        if it.logits is not None and not (ignore_blanks and texts[place] != texts[place].strip())
    ]
    inputs = [texts[place] for place in run]
    logits = torch.tensor([contract.golden[place].logits for place in run])
    cut = {place for place, it in enumerate(run) if contract.golden[it].cut}
    names = [contract.golden[place].about for place in run]
    return compared(server, server.probabilities(inputs), inputs, logits, names, tolerance, cut)


def compared(
    server: Server,
    found: Tensor,
    inputs: Sequence[str],
    logits: Tensor,
    names: Sequence[str],
    tolerance: float | None = None,
    cut: Set[int] = frozenset(),
) -> Replay:
    """A server's probabilities of inputs beside the logits that they should come from; some of the inputs are cut."""
    contract = server.contract
    allowed = allowed_difference(contract, "probabilities") if tolerance is None else tolerance
    should = contract.probabilities(logits)
    off = row_differences(found, should)
    past = {place for place in range(len(off)) if not off[place] <= allowed}
    stripped = {place for place, text in enumerate(inputs) if text != text.strip()}
    unit = "number" if contract.activation == "none" else "probability"
    remarks = [
        *server.remarks,
        *(_of_all(found, logits, contract, allowed) if past else ()),
        *(_of_some(past, cut, stripped, contract) if past <= cut | stripped else ()),
    ]
    return beside_each_other(contract, found, should, off, names, allowed, unit=unit, remarks=remarks)


def _of_all(found: Tensor, logits: Tensor, contract: Contract, allowed: float) -> Iterator[str]:
    """What a server may be doing, where that gives all its answers."""

    def gives(expected: Tensor) -> bool:
        return bool((row_differences(found, expected) <= allowed).all())

    should = contract.probabilities(logits)
    for activation in ("softmax", "sigmoid", "none"):
        if activation != contract.activation and gives(activated(activation, logits)):
            said = {"none": "no activation"}
            yield f"it answers with {said.get(activation, activation)}, where the contract says {contract.activation}"
    if contract.temperature != 1 and gives(contract.probabilities(logits / contract.temperature)):
        yield f"it divides by the temperature, {contract.temperature:.4g}, which is in the weights already"
    # Of the scores of each label, whose they may be.
    alike = (((should - column[:, None]).abs() <= allowed).all(0).nonzero().flatten().tolist() for column in found.T)
    order = [labels[0] if labels else -1 for labels in alike]
    if sorted(order) == list(range(len(order))) and order != sorted(order):
        given = ", ".join(contract.labels[place] for place in order)
        yield f"its labels are in another order: {given}, where the contract has {', '.join(contract.labels)}"


def _of_some(past: Set[int], cut: Set[int], stripped: Set[int], contract: Contract) -> Iterator[str]:
    """What a server may be doing, where none but texts that are cut or begin or end in blanks differ."""
    if past & cut:
        yield (
            f"{'only ' if past <= cut else ''}texts of more than {contract.max_length} tokens differ: it has to cut them on "
            f"the {contract.truncation_side}, to {contract.max_length}, those that the tokenizer adds among them"
        )
    if past & stripped - cut:
        yield (
            f"{'only ' if past <= stripped else ''}texts with blanks at an end differ: it strips them, as infinity does; where "
            "yours have none, add --ignore-blanks"
        )
