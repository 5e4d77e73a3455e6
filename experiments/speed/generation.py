"""Tokens per second of fmjax and of transformers' `generate`, side by side.

python -m experiments.speed.generation                 (needs the `parity` extra)
python -m experiments.speed.generation --threads 1 --only gpt2-6x384

Both load the same random weights from one folder, write the same number of tokens for
the same prompts in float32, and take turns. Beside them stands what reading the weights
alone would allow on this machine, measured in the same run. One thread is timed by its
processor's seconds, which other work disturbs little, several by the clock. A line a
case goes to generation.jsonl beside this file, or to --output.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """kind: a transformers class; fields: of its config; prompt: tokens of prompts or
    sources; length: new tokens."""

    kind: str
    fields: dict[str, Any]
    batch: int
    beams: int = 1
    prompt: int = 32
    length: int = 64


GPT = "GPT2LMHeadModel"
SMALL = dict(n_embd=384, n_layer=6, n_head=6)
T5 = dict(d_model=512, num_layers=6, num_heads=8, d_ff=2048, pad_token_id=0)
T5 |= dict(decoder_start_token_id=0)
MARIAN = dict(vocab_size=8192, d_model=512, max_position_embeddings=256)
MARIAN |= {f"{side}_layers": 6 for side in ("encoder", "decoder")}
MARIAN |= {f"{side}_attention_heads": 8 for side in ("encoder", "decoder")}
MARIAN |= {f"{side}_ffn_dim": 2048 for side in ("encoder", "decoder")}
MARIAN |= dict(pad_token_id=0, decoder_start_token_id=0, scale_embedding=True)
CASES = {
    "gpt2-6x384, batch 1": Case(GPT, SMALL, 1),
    "gpt2-6x384, batch 8": Case(GPT, SMALL, 8),
    "marian-6x512, batch 4, 4 beams": Case(
        "MarianMTModel", MARIAN, 4, beams=4, length=32
    ),
    "gpt2-small, batch 1": Case(GPT, {}, 1, length=32),
    "gpt2-small, batch 8": Case(GPT, {}, 8, length=32),
    "t5-small, batch 4, 4 beams": Case(
        "T5ForConditionalGeneration", T5, 4, beams=4, length=32
    ),
}

# What a step does not read: of positions it is a row, and what the decoder sees of a
# source is computed once.
UNREAD = re.compile("encoder|positions|cross_attention/(key|value)")


def read_a_step(params: Any) -> int:
    """Bytes of the weights of fmjax's `params` that every step of decoding reads."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        leaf.size * leaf.dtype.itemsize
        for path, leaf in leaves
        if not UNREAD.search(jax.tree_util.keystr(path, simple=True, separator="/"))
    )


def bandwidth(
    rows: int,
    clock: Callable[[], float],
    *,
    shape: tuple[int, int] = (16384, 8192),
    repeats: int = 12,
) -> dict[str, float]:
    """Bytes a second at which a float32 matrix is read, by what multiplies it.

    A plain product of `rows` rows with a matrix of `shape`, which is to be larger than
    the caches: XLA's and torch's, with the matrix and with its transpose, the fastest
    of `repeats` in turns.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    inner, outer = shape
    matrix = np.random.default_rng(0).random(shape, np.float32)
    left, right = np.ones((rows, inner), np.float32), np.ones((rows, outer), np.float32)
    here = jax.device_put((matrix, left, right))
    there = [torch.from_numpy(x) for x in (matrix, left, right)]
    plain = jax.jit(lambda w, x: x @ w)
    turned = jax.jit(lambda w, x: jnp.einsum("ro,io->ri", x, w))
    products = {
        "XLA": lambda: plain(here[0], here[1]).block_until_ready(),
        "XLA, transposed": lambda: turned(here[0], here[2]).block_until_ready(),
        "torch": lambda: there[1] @ there[0],
        "torch, transposed": lambda: there[2] @ there[0].T,
    }
    least = dict.fromkeys(products, float("inf"))
    for turn in range(repeats + 1):  # the first compiles
        for name, product in products.items():
            began = clock()
            product()
            if turn:
                least[name] = min(least[name], clock() - began)
    return {name: matrix.nbytes / seconds for name, seconds in least.items()}


def writers(case: Case, folder: str) -> tuple[Callable, Callable, int]:
    """Two functions without arguments, fmjax's and transformers', that return new
    tokens [B, N], and the bytes that a step reads."""
    import jax
    import numpy as np
    import torch
    import transformers

    from fmjax import generation, interop

    torch.manual_seed(0)
    kind = getattr(transformers, case.kind)
    none = dict(bos_token_id=None, eos_token_id=None, forced_eos_token_id=None)
    kind(kind.config_class(**none, **case.fields)).save_pretrained(folder)
    theirs = kind.from_pretrained(folder).eval()
    net, variables = interop.load(folder)
    variables = jax.device_put(variables)
    random = np.random.default_rng(0)
    shape = (case.batch, case.prompt)
    tokens = random.integers(1, net.vocab_size, shape, np.int32)
    start = None if case.kind == GPT else 0
    ids = torch.tensor(tokens).long()

    def ours() -> Any:
        made = generation.generate(
            net,
            variables,
            {"tokens": tokens},
            length=case.length,
            beams=case.beams,
            start=start,
        )
        return made.tokens

    def reference() -> Any:
        made = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=case.length,
            num_beams=case.beams,
            do_sample=False,
            pad_token_id=0,
        )
        return made[:, 1 if case.kind != GPT else case.prompt :].numpy()

    return ours, reference, read_a_step(variables["params"])


def measure(case: Case, repeats: int, threads: int) -> dict[str, Any]:
    """Tokens a second (median, least, most) of both, and the processor's seconds.

    Compilation and one warm-up run of each are left out. `bound` is the tokens a second
    of steps that read their weights, as fast as `bandwidth` did, and do nothing else.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        ours, reference, size = writers(case, folder)
        both = {"fmjax": ours, "transformers": reference}
        began = time.perf_counter()
        texts = {"fmjax": both["fmjax"]()}
        compiled = time.perf_counter() - began
        texts["transformers"] = both["transformers"]()
        read = bandwidth(case.batch * case.beams, clock)
        spent: dict[str, list[float]] = {name: [] for name in both}
        busy: dict[str, list[float]] = {name: [] for name in both}
        for _ in range(repeats):
            for name, write in both.items():
                began, used = clock(), time.process_time()
                write()
                spent[name].append(clock() - began)
                busy[name].append(time.process_time() - used)
    count = case.batch * case.length
    found: dict[str, Any] = {
        "same_tokens": bool((texts["fmjax"] == texts["transformers"]).all()),
        "clock": clock.__name__,
        "bytes_a_step": size,
        "bytes_per_second": read,
        "bound": case.batch * max(read.values()) / size,
    }
    for name in both:
        rates = sorted(count / seconds for seconds in spent[name])
        found[name] = {
            "tokens_per_second": statistics.median(rates),
            "least": rates[0],
            "most": rates[-1],
            "processor_seconds": statistics.median(busy[name]),
        }
    a, b = found["fmjax"], found["transformers"]
    found["ratio"] = a["tokens_per_second"] / b["tokens_per_second"]
    turns = zip(spent["transformers"], spent["fmjax"], strict=True)
    found["ratio_by_turn"] = sorted(theirs / ours for theirs, ours in turns)
    # The turns that other work disturbed least: torch's threads wait for each other in
    # a busy loop, and are dozens of times slower where one has to share its processor.
    found["ratio_of_best"] = a["most"] / b["most"]
    found["processor_ratio"] = b["processor_seconds"] / a["processor_seconds"]
    return found | {"first_call_seconds": compiled}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The lines of a run as README.md shows them."""
    columns = ["case", "threads", "fmjax, tokens/s [least, most]"]
    columns += ["transformers, tokens/s [least, most]", "ratio [by turn]"]
    columns += ["processor seconds, ratio", "bound, tokens/s", "same tokens"]
    rows = [columns, ["---"] * len(columns)]
    for line in found:
        spans = [
            f"{one['tokens_per_second']:.1f} [{one['least']:.1f}, {one['most']:.1f}]"
            for one in (line["fmjax"], line["transformers"])
        ]
        turns = line["ratio_by_turn"]
        ratio = f"{line['ratio']:.2f} [{turns[0]:.2f}, {turns[-1]:.2f}]"
        bound = f"{line['bound']:.1f}" if "bound" in line else "-"
        rest = f"{line['processor_ratio']:.2f}", bound
        same = "yes" if line["same_tokens"] else "no"
        rows.append([line["case"], str(line["threads"]), *spans, ratio, *rest, same])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def processor(file: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Its name, and the widest vectors it has: what a product's speed hangs on most."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    told = dict(re.split(r"\s*: ", line, maxsplit=1) for line in lines if ": " in line)
    flags = told.get("flags", "").split()
    wide = [name for name in ("avx512f", "avx2") if name in flags]
    named = told.get("model name") or platform.processor() or platform.machine()
    return ", ".join([named, *wide[:1]])


def conditions(threads: int) -> dict[str, Any]:
    versions = ("fmjax", "jax", "torch", "transformers", "numpy")
    return {
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "processor": processor(),
        "versions": {name: importlib.metadata.version(name) for name in versions},
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).parent
    parser.add_argument(
        "--output", type=pathlib.Path, default=here / "generation.jsonl"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="cases whose name has this")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= given.threads <= len(cores):
        parser.error(f"--threads must be 1 to {len(cores)}")
    # XLA makes a thread for each processor it may use, which it learns at its start.
    os.sched_setaffinity(0, cores[: given.threads])
    import torch
    import transformers

    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, case in CASES.items():
        if given.only in name:
            at = conditions(given.threads)
            found = {"case": name, **measure(case, given.repeats, given.threads)}
            found |= {"repeats": given.repeats, "case_fields": dataclasses.asdict(case)}
            found |= at | {"load_after": os.getloadavg()[0]}
            with open(given.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            ours, theirs = found["fmjax"], found["transformers"]
            print(
                f"{name}: {ours['tokens_per_second']:.1f} beside "
                f"{theirs['tokens_per_second']:.1f} tokens a second, "
                f"{found['ratio']:.2f} times; best {found['ratio_of_best']:.2f}; "
                f"processor {found['processor_ratio']:.2f}; "
                f"bound {found['bound']:.1f}; "
                f"same tokens: {found['same_tokens']}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
