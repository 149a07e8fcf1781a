# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints with mlx-lm, in build/readers: neither temper's code nor transformers' model is in it.

Reads {"model": directory, "prompt": tokens, "new_tokens": count} from stdin, an object a line, and answers each with
{"logits": of all positions of the prompt, in fp32, "tokens": greedily chosen}, or {"error": text}.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model


def answer(request: dict) -> dict:
    model, _ = load_model(Path(request["model"]))
    model.set_dtype(mx.float32)
    prompt = mx.array([request["prompt"]])
    logits = model(prompt)[0]
    cache, tokens = make_prompt_cache(model), []
    last = model(prompt, cache=cache)
    for _ in range(request["new_tokens"]):
        tokens.append(mx.argmax(last[0, -1]).item())
        last = model(mx.array([[tokens[-1]]]), cache=cache)
    return {"logits": logits.tolist(), "tokens": tokens}


for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:  # of whatever kind: it says that this reader can't read it
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
