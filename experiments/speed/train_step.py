"""A training step of fmjax beside torch's, and beside one written by hand.

    pip install -e '.[experiments,parity]'
    python -m experiments.speed.train_step [--threads 1] [--only GPT-2]

Steps of the same sizes take turns on the same batch, all in float32, without dropout,
with the optimizer's update, in a process each: fmjax's own (`train.prepare`, compiled
as the loop does, its numbers read), the same model's loss with `jax.grad` and optax in
a dozen lines, and the public implementation in torch: eager as it is, eager with freed
memory kept as fmjax keeps it (`fmjax.memory`), and compiled (`torch.compile`, which
needs a C++ compiler, and is left out where there is none). A line a case goes to
train_step.jsonl beside this file, or to --output.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.speed import generation

# An arm is a process of its own.
KEPT, COMPILED = "torch, memory kept", "torch.compile"
ARMS = ("fmjax", "by hand", "torch", KEPT, COMPILED)
SMALL = {"width": 384, "depth": 6, "heads": 6, "mlp_width": 1536}
THEIRS = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}
THEIRS |= {"intermediate_size": 1536}


@dataclasses.dataclass(frozen=True)
class Case:
    """config: ours, with settings changed; kind: a transformers class and fields."""

    config: str
    changes: Mapping[str, Any]
    kind: str
    fields: Mapping[str, Any]


def _model(**fields: Any) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in fields.items()}


def _bert(predictions: int, rate: float) -> Case:
    """Ours predicts at the masked tokens; transformers' logits are of every token."""
    masked = {"inputs.predictions": predictions, "inputs.rate": rate}
    return Case(
        "configs/bert/pretrain.py",
        _model(size=None, vocab_size=30522, **SMALL)
        | {"data.length": 128, "batch_size": 8}
        | masked,
        "BertForPreTraining",
        THEIRS | dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    )


CASES = {
    "BERT 6x384, 8 x 128": _bert(128, 1.0),
    "BERT 6x384, 8 x 128, 15 % masked": _bert(20, 0.15),
    "GPT-2 6x384, 4 x 256": Case(
        "configs/gpt/language_model.py",
        _model(vocab_size=50257, **(SMALL | {"max_length": 256}))
        | {"data.length": 256, "batch_size": 4},
        "GPT2LMHeadModel",
        dict(n_embd=384, n_layer=6, n_head=6, n_positions=256)
        | dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    ),
    "T5 6x512, 4 x 128 to 64": Case(
        "configs/transformer/translation.py",
        {"model": dict(name="t5", size="small", vocab_size=32128, dropout=0.0)}
        | {"inputs.length": 128, "inputs.target_length": 64, "batch_size": 4}
        | {"objective.label_smoothing": 0.0},
        "T5ForConditionalGeneration",
        dict(d_model=512, num_layers=6, num_heads=8, d_ff=2048, vocab_size=32128)
        | dict(dropout_rate=0.0, decoder_start_token_id=0),
    ),
    "ViT-S/16, 4 x 224 x 224": Case(
        "configs/vit/imagenet.py:S/16",
        _model(scan=False, dtype="float32")
        | {"inputs.mixup": 0.0, "inputs.randaugment": None, "batch_size": 4},
        "ViTForImageClassification",
        dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6)
        | dict(intermediate_size=1536, num_labels=1000)
        | dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    ),
    "ResNet-50, 8 x 128 x 128": Case(
        "configs/resnet/imagenet.py:50",
        _model(dtype="float32") | {"inputs.size": 128, "batch_size": 8},
        "ResNetForImageClassification",
        dict(num_labels=1000),
    ),
    "small CNN, 64 x 28 x 28": Case(
        "configs/cnn/fashion_mnist.py", {"model.classes": 10}, "cnn", {}
    ),
}


def settings(case: Case) -> dict[str, Any]:
    """Ours, with made-up data and plain AdamW: no clipping, decay or schedule."""
    from fmjax import config
    from fmjax.costs import stand_in

    overrides = {k: str(v) for k, v in case.changes.items() if k != "model"}
    made = config.load(case.config, overrides)
    made["model"] = case.changes.get("model", made["model"])
    made["optim"] = dict(name="adamw", lr=1e-4, weight_decay=0.01, no_decay=r"^$")
    made = stand_in.settings(made)
    if made["data"]["name"] == "synthetic_images" and case.kind == "cnn":
        made["data"] = dict(name="synthetic_images", shape=(28, 28, 1), classes=10)
    return made


def ours(case: Case) -> tuple[Callable, Callable, dict[str, Any]]:
    """(fmjax's step, one by hand), which return their loss, and what is known."""
    import jax
    import optax

    from fmjax import parallel, train
    from fmjax import step as stepping
    from fmjax.costs import account, flops

    whole: dict[str, Any] = {
        "evaluate": None,
        "checkpoint": None,
        "log": None,
        "guard": None,
    }
    whole |= {"transforms": None, "init_from": None, "accum": 1, "seed": 0}
    setup = train.prepare(whole | settings(case))
    batch = parallel.put(setup.train_set.at(0), setup.plan)
    state = jax.jit(setup.create)(jax.random.key(0))
    told: dict[str, Any] = {"parameters": account.count(state.params)}
    told["model_flops"] = flops.count(setup.step, setup.state, batch)
    began = time.monotonic()
    compiled = parallel.compile_step(setup.step, setup.state, batch, setup.plan)
    told["compile_seconds"] = time.monotonic() - began
    net, objective = setup.parts.net, setup.parts.objective
    tx = optax.adamw(1e-4, weight_decay=0.01)

    @jax.jit
    def by_hand(params, extras, moments, batch, key):
        def loss(params, extras):
            apply = stepping.pure(net)
            sums, _, extras = objective(apply, params, extras, batch, key)
            return sum(total / weight for total, weight in sums.values()), extras

        grads = jax.value_and_grad(loss, has_aux=True)
        (value, extras), slope = grads(params, extras)
        updates, moments = tx.update(slope, moments, params)
        return value, optax.apply_updates(params, updates), extras, moments

    by_hand = jax.jit(by_hand, donate_argnums=(0, 1, 2))
    copy = lambda tree: jax.tree.map(lambda x: x.copy(), tree)  # noqa: E731
    params, extras = copy(state.params), copy(state.extras)
    held: dict[str, Any] = {"ours": state}
    held["bare"] = (params, extras, tx.init(params))
    key = jax.random.key(1)

    def step() -> float:
        held["ours"], sums = compiled(held["ours"], batch)
        return stepping.means(jax.device_get(sums))["loss"]

    def bare() -> float:
        value, *held["bare"] = by_hand(*held["bare"], batch, key)
        return float(value)

    return step, bare, told | {"batch": batch}


def torchs(case: Case, batch: Any, *, compiled: bool = False) -> Callable:
    """The public implementation's step on our batch; it returns its loss."""
    import torch
    import transformers

    torch.manual_seed(0)
    inputs, host = batch["inputs"], lambda x: torch.tensor(np.array(x))
    long = lambda x: host(x).long()  # noqa: E731
    given: dict[str, Any] = {}
    if case.kind == "cnn":
        net: Any = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(32 * 13 * 13, 64), torch.nn.ReLU(),
            torch.nn.Linear(64, 10),
        )  # fmt: skip
    else:
        kind = getattr(transformers, case.kind)
        net = kind(kind.config_class(**case.fields))
    if case.kind == "BertForPreTraining":
        labels = torch.full(inputs["tokens"].shape, -100)
        row, spot = host(batch["weights"]).nonzero(as_tuple=True)
        spots = long(inputs["positions"])[row, spot]
        labels[row, spots] = long(batch["targets"])[row, spot]
        given = dict(input_ids=long(inputs["tokens"]), labels=labels)
        given |= dict(token_type_ids=long(inputs["types"]))
        given |= dict(attention_mask=long(inputs["mask"]))
        given |= dict(next_sentence_label=long(batch["next"]))
    elif case.kind == "GPT2LMHeadModel":
        tokens = long(inputs["tokens"])
        given = dict(input_ids=tokens, labels=tokens)
    elif case.kind == "T5ForConditionalGeneration":
        given = dict(input_ids=long(inputs["tokens"]), labels=long(batch["targets"]))
        given |= dict(attention_mask=long(inputs["mask"]))
    else:
        images = host(inputs).permute(0, 3, 1, 2).contiguous()
        labels = long(batch["label"])
        if case.kind != "cnn":
            given = dict(pixel_values=images, labels=labels % 1000)
    net.train()
    update = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.01)
    if compiled:
        net = torch.compile(net)

    def step() -> float:
        update.zero_grad()
        if given:
            loss = net(**given).loss
        else:
            loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        update.step()
        return float(loss.detach())

    return step


def peak(repeats: int = 5) -> float:
    """FLOPs of a product of two 1024 x 1024 matrices in a second of the processor.

    The best of some.
    """
    import jax
    import jax.numpy as jnp

    x = jnp.ones((1024, 1024))
    product = jax.jit(lambda a, b: a @ b)
    product(x, x).block_until_ready()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        product(x, x).block_until_ready()
        times.append(time.process_time() - began)
    return 2 * 1024**3 / min(times)


def batch_of(name: str) -> dict[str, np.ndarray]:
    """Our batch of a case, by path: 'inputs/tokens'."""
    from flax import traverse_util

    from fmjax import train

    given = dict(evaluate=None, checkpoint=None, log=None, guard=None, transforms=None)
    whole = given | dict(init_from=None, accum=1, seed=0)
    setup = train.prepare(whole | settings(CASES[name]))
    found: dict[str, np.ndarray] = traverse_util.flatten_dict(
        setup.train_set.at(0), sep="/"
    )
    return found


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{'inputs/tokens': ...} as dicts in dicts, without jax, which torch's process does
    not import."""
    made: dict[str, Any] = {}
    for path, value in arrays.items():
        *above, last = path.split("/")
        at = made
        for part in above:
            at = at.setdefault(part, {})
        at[last] = value
    return made


def child(arm: str, name: str, file: pathlib.Path, threads: int) -> None:
    """A process that takes a step for each line it reads, and writes what it took."""
    told: dict[str, Any] = {}
    if arm not in ("torch", COMPILED):
        from fmjax import memory

        told["memory_kept"] = memory.keep()
    if arm in ("fmjax", "by hand"):
        from fmjax import cli

        cli.cache()
        step, bare, found = ours(CASES[name])
        del found["batch"]
        told, step = told | found, step if arm == "fmjax" else bare
    else:
        import torch

        torch.set_num_threads(threads)
        with np.load(file) as kept:
            batch = nested(dict(kept))
        step = torchs(CASES[name], batch, compiled=arm == COMPILED)
    began = time.monotonic()
    told["first_loss"] = step()
    told["first_step_seconds"] = time.monotonic() - began
    print(json.dumps(told), flush=True)
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        step()
        used, wall = time.process_time() - used, time.perf_counter() - began
        print(json.dumps({"wall": wall, "busy": used}), flush=True)


class Arm:
    """A process that takes steps when asked to."""

    def __init__(self, arm: str, name: str, file: pathlib.Path, threads: int) -> None:
        self.name = f"{name}, {arm}"
        words = ["--child", arm, "--only", name, "--batch", str(file)]
        words += ["--threads", str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments.speed.train_step", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.told = self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def step(self) -> tuple[float, float]:
        """Seconds by the clock, and of the processor."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        took = self._line()
        return took["wall"], took["busy"]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def compiler() -> bool:
    """Whether torch.compile finds what it needs; otherwise that column stays empty."""
    names = (os.environ.get("CXX", "g++"), "clang++")
    return any(shutil.which(name) for name in names)


def measure(name: str, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds a step of each (median, least, most), and ratios turn by turn."""
    arms = [arm for arm in ARMS if arm != COMPILED or compiler()]
    wall: dict[str, list[float]] = {arm: [] for arm in arms}
    busy: dict[str, list[float]] = {arm: [] for arm in arms}
    steps: dict[str, Arm] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "batch.npz"
        with open(file, "wb") as out:
            np.savez(out, **batch_of(name))  # type: ignore[arg-type]
        try:
            for arm in arms:
                steps[arm] = Arm(arm, name, file, threads)
                steps[arm].step()  # torch's second step is slower than its third
            for turn in range(repeats):
                # There and back, so that none always comes after the same one.
                for arm in arms[:: 1 if turn % 2 == 0 else -1]:
                    clock, used = steps[arm].step()
                    wall[arm].append(clock)
                    busy[arm].append(used)
        finally:
            for one in steps.values():
                one.end()
    found: dict[str, Any] = dict(steps["fmjax"].told)
    for told in ("first_loss", "first_step_seconds"):
        found[told] = {arm: steps[arm].told[told] for arm in arms}
    for arm in arms:
        found[arm] = {
            "seconds": statistics.median(wall[arm]),
            "least": min(wall[arm]),
            "most": max(wall[arm]),
            "processor_seconds": statistics.median(busy[arm]),
        }
    for arm in arms[1:]:
        # Processor seconds: other work on the machine is in the clock's.
        pairs = zip(busy[arm], busy["fmjax"], strict=True)
        turns = sorted(theirs / mine for theirs, mine in pairs)
        found[f"{arm} / fmjax"] = statistics.median(turns)
        found[f"{arm} / fmjax, by turn"] = turns
    fastest = min(busy["fmjax"])
    return found | {"flops_per_second": found["model_flops"] / fastest}


def table(lines: list[dict[str, Any]]) -> str:
    """The lines as Markdown, for README.md."""
    heads: tuple[str, ...] = (
        "step",
        "threads",
        "fmjax, ms",
        "torch, ms",
        "torch / fmjax [by turn]",
    )
    heads += (f"{KEPT} / fmjax", f"{COMPILED} / fmjax")
    heads += ("by hand / fmjax", "of the matmul peak")
    rows = [heads, ("---",) * len(heads)]
    for line in lines:
        spread = lambda name: (  # noqa: E731
            f"{line[name]:.2f} [{line[f'{name}, by turn'][0]:.2f}, "  # noqa: B023
            f"{line[f'{name}, by turn'][-1]:.2f}]"  # noqa: B023
            if name in line  # noqa: B023
            else "-"
        )
        milli = lambda name: f"{1e3 * line[name]['processor_seconds']:.0f}"  # noqa: E731, B023
        share = "-"  # where the peak was not measured
        if "peak" in line:
            share = f"{line['flops_per_second'] / line['peak']:.0%}"
        cells: tuple[str, ...] = (
            line["case"],
            str(line["threads"]),
            milli("fmjax"),
            milli("torch"),
        )
        others = ("torch", KEPT, COMPILED, "by hand")
        cells += (*(spread(f"{name} / fmjax") for name in others), share)
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).parent
    parser.add_argument(
        "--output", type=pathlib.Path, default=here / "train_step.jsonl"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="cases whose name has this")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= given.threads <= len(cores):
        parser.error(f"--threads must be 1 to {len(cores)}")
    # XLA makes a thread for each processor it may use, which it learns at its start.
    os.sched_setaffinity(0, cores[: given.threads])
    if given.child:
        child(given.child, given.only, given.batch, given.threads)
        return 0
    for name in CASES:
        if given.only not in name:
            continue
        at = generation.conditions(given.threads)
        line = {
            "case": name,
            "peak": peak(),
            **measure(name, given.repeats, given.threads),
        }
        line |= {"repeats": given.repeats} | at | {"load_after": os.getloadavg()[0]}
        with open(given.output, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    read = given.output.read_text("utf-8").splitlines()
    print(table([json.loads(line) for line in read]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
