"""A classifier behind each of the servers' documented protocols on loopback, right or wrong on purpose.

It serves an export as those servers do: the folder's tokenizer, `truncation=True`, the stock classifier, each text alone.
"""

import copy
import functools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

PATHS = {"vllm": "/classify", "infinity": "/classify", "tei": "/predict", "endpoint": "/"}


@functools.cache
def opened(folder):
    return AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()


class ServingStandIn:
    """`with ServingStandIn(folder, kind, fault) as server:` serves at `server.url`; `server.requests` are what came."""

    known = {}  # the scores of a text, of a folder under a fault

    def __init__(self, folder, kind, fault=None, token=None):
        self.folder = str(folder)
        self.kind, self.fault, self.token, self.requests = kind, fault, token, []
        tokenizer, self.model = opened(self.folder)
        self.tokenizer = copy.deepcopy(tokenizer)
        config = self.model.config
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        self.multi = config.problem_type == "multi_label_classification"
        self.regression = config.problem_type == "regression"
        if fault == "other side":
            self.tokenizer.truncation_side = "left"
        if fault == "longer":
            self.tokenizer.model_max_length += 3
        if fault == "specials split":
            self.tokenizer.split_special_tokens = True

    def __enter__(self):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.requests.append((self.path, dict(self.headers), body))
                status, answer, headers = stand_in.answer(self.path, self.headers, body)
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                if stand_in.fault == "drips":
                    self.end_headers()
                    while True:
                        self.wfile.write(b" ")
                        time.sleep(0.05)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data) + (stand_in.fault == "cut short")))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *args: None  # a client that waits no longer
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path, headers, body):
        if path != PATHS[self.kind]:
            return 404, {"detail": "Not Found"}, {}
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {"error": f"wrong token {headers.get('Authorization')}"}, {}
        if self.fault == "redirect":
            return 307, "", {"Location": "http://example.org/classify"}
        if self.fault == "refuses":
            return (
                400,
                {"error": {"message": f"no such model; you sent {headers.get('Authorization')}", "code": 400}},
                {},
            )
        if self.fault == "html":
            return 200, "<html>hello</html>", {}
        if self.fault == "endless":
            return 200, " " * 3_000, {}
        if self.fault == "hangs":
            time.sleep(3)
        if self.kind in ("vllm", "infinity"):
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        elif self.kind == "tei":
            assert body["truncate"] is True and all(len(it) == 1 for it in body["inputs"])
            texts = [text for (text,) in body["inputs"]]
        else:
            texts = body["inputs"]
        scores = [self.scores(text, body.get("raw_scores", False)) for text in texts]
        names = {"names lost": [f"LABEL_{i}" for i in range(len(self.labels))], "wrong order": self.labels[::-1]}.get(
            self.fault, self.labels
        )
        rows = [[{"score": s, "label": name} for name, s in zip(names, row, strict=True)] for row in scores]
        if self.fault != "null":
            rows = [sorted(row, key=lambda it: -it["score"]) for row in rows]
        if self.kind == "vllm":
            data = [
                {
                    "index": i,
                    "label": names[row.index(max(row, key=lambda it: it or 0))],
                    "probs": row,
                    "num_classes": len(row),
                }
                for i, row in enumerate(scores)
            ]
            return (
                200,
                {"id": "classify-1", "object": "list", "created": 1, "model": "m", "data": data, "usage": {}},
                {},
            )
        if self.kind == "infinity":
            return 200, {"object": "classify", "data": rows, "model": "m", "usage": {}, "id": "x", "created": 1}, {}
        if self.kind == "endpoint":
            return 200, [row[: body["parameters"]["top_k"]] for row in rows], {}
        return 200, rows, {}

    def scores(self, text, raw=False):
        key = (self.folder, self.fault, self.kind == "tei", raw, text)
        if key not in self.known:
            self.known[key] = self.computed(text, raw)
        return self.known[key]

    @torch.no_grad()
    def computed(self, text, raw):
        text = text.strip() if self.fault == "strips" else text
        logits = self.model(**self.tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
        if self.fault == "temperature again":
            logits = logits / 2.5
        if self.fault == "softmax":
            return logits.softmax(-1).tolist()
        if self.fault == "raw" or raw:
            return logits.tolist()
        if self.fault in ("nan", "null"):
            return [float("nan") if self.fault == "nan" else None] * len(logits)
        if self.kind == "tei":  # its text_embeddings_core::infer knows no problem type
            return (logits.softmax(-1) if len(logits) > 1 else logits.sigmoid()).tolist()
        if self.regression:
            return logits.tolist()
        return (logits.sigmoid() if self.multi else logits.softmax(-1)).tolist()
