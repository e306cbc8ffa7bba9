"""Tokens per CPU second of packed documents and of the same documents padded to the longest, forward and backward.

One thread (OMP_NUM_THREADS=1), so that other work on the machine does not count. Every eighth document is used.

python -m tests.text.measure_packing STEPS ROWS TOKENS FAMILY PRECISION FILE...
A step is ROWS rows of TOKENS tokens, that is, so many documents at random (cut at TOKENS).
"""

import json
import sys
import time

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from medtextdiff.text import mlm, packed_attention
from medtextdiff.text.corpora import plain
from medtextdiff.text.loading import read_tokenizer
from medtextdiff.text.masked import bert, modernbert


def packed(network, batch) -> Tensor:
    states = packed_attention.states(network.base_model, batch["ids"], batch["lengths"])
    return mlm.guess(network, states, batch["labels"])["loss"]


def padded(network, batch) -> Tensor:
    """Each document in a row of its own, by transformers' own attention."""
    lengths = batch["lengths"].tolist()
    ids = pad_sequence(batch["ids"].split(lengths), batch_first=True)
    real = pad_sequence([torch.ones(length) for length in lengths], batch_first=True).bool()
    states = network.base_model(input_ids=ids, attention_mask=real.long()).last_hidden_state
    return mlm.guess(network, states[real], batch["labels"])["loss"]


def seconds(way, network, batch, precision) -> tuple[float, float]:
    begun = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = way(network, batch)
    loss.backward()
    network.zero_grad()
    return time.process_time() - begun, loss.item()


def main(steps: int, rows: int, tokens: int, family: str, precision: str, files: list[str]) -> dict[str, object]:
    torch.manual_seed(0)
    documents = list(plain.Config(paths=tuple(files), heldout=0).build().documents())[::8]  # the same lengths
    words = read_tokenizer("builtin:modernbert-small/text")
    network = {"modernbert": modernbert, "bert": bert}[family].Config().build(words)
    longest = min(tokens, network.config.max_position_embeddings)
    data = mlm.MaskedWords(documents, words, length=tokens, longest=longest)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[: rows * (steps + 1)].tolist()
    times, apart, real, slots, num = {"packed": 0.0, "padded": 0.0}, 0.0, 0, 0, 0
    for number in range(steps + 1):
        chosen = order[number * rows : (number + 1) * rows]
        batch = data.collate([data.sample(index, torch.Generator().manual_seed(index)) for index in chosen])
        found = {way.__name__: seconds(way, network, batch, precision) for way in (packed, padded)}
        if number == 0:
            continue  # warm-up
        times = {name: total + found[name][0] for name, total in times.items()}
        apart = max(apart, abs(found["packed"][1] - found["padded"][1]))
        real += len(batch["ids"])
        num += len(batch["lengths"])
        slots += len(batch["lengths"]) * int(batch["lengths"].max())
    return {
        "family": family,
        "precision": precision,
        "documents": len(documents),
        "rows": len(data),
        "row_fill": round(data.num_tokens / (len(data) * tokens), 4),
        "steps": steps,
        "documents_per_step": round(num / steps, 1),
        "tokens": real,
        "padded_tokens": slots,
        "tokens_per_second": {name: round(real / total) for name, total in times.items()},
        "ratio": round(times["padded"] / times["packed"], 2),
        "largest_difference_of_loss": apart,
    }


if __name__ == "__main__":
    steps, rows, tokens, family, precision, *files = sys.argv[1:]
    print(json.dumps(main(int(steps), int(rows), int(tokens), family, precision, files)))
