"""Published configs by the TPU compiler: what they cost, and a slice that they fit.

    pip install -e '.[experiments,tpu]'       (Linux; no TPU is needed)
    python -m experiments.scale.run [--part fit --part weak ...] [--only NAME]

Each row is one or more calls of `fmjax compile`, on smaller slices until one is too
small: every row's first slice, then the second ones. results.jsonl has a line a call
with its command; a call that is there is not made again. Then the figure is drawn. The
calls take minutes each, on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from experiments import arms
from fmjax.reporting import figures

ROOT = pathlib.Path(__file__).parent
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


class Row(NamedTuple):
    """A config, what is changed in it, and slices to try, the largest first."""

    name: str
    config: str
    topologies: tuple[str, ...]
    changes: Mapping[str, Any] = {}  # dotted settings
    slices: int = 1
    keep: bool = False  # the state's buffers are not given away
    effort: float | None = -1.0  # the compiler's; None: its default
    libtpu: str = ""  # its flags


GPT, BERT, T5 = (
    f"configs/{file}.py"
    for file in ("gpt/language_model", "bert/pretrain", "t5/pretrain")
)
IMAGENET = "configs/{}/imagenet.py"
REMAT = {"model.scan": True, "model.remat": "full", "model.dtype": "bfloat16"}
CUT = {"parallel.params": "fsdp"}
# Batches are the configs' own, but for ResNet-50's and GPT-2's on two slices; GPT-3's
# are rounded, to 1,024 and 1,536. They are cut into microbatches, which changes no
# number of a step. A vocabulary that 128 divides is GPT-2's, padded.
PADDED = {"model.vocab_size": 50304}
TENSOR = {
    "parallel.params": "fsdp+tensor",
    "parallel.mesh": (("data", -1), ("model", 8)),
}
FIT = (
    Row("BERT large", f"{BERT}:large", ("v5e:2x2",), REMAT | {"accum": 4}, effort=None),
    Row(
        "GPT-2 XL",
        f"{GPT}:gpt2-xl",
        ("v5e:2x2",),
        PADDED | {"accum": 32},
        effort=None,
    ),
    Row("ViT-L/16", IMAGENET.format("vit") + ":L/16", ("v5e:2x2",), REMAT | CUT),
    Row(
        "GPT-3 13B",
        f"{GPT}:gpt3-13b",
        ("v5p:2x2x1",),
        PADDED | {"batch_size": 1024, "accum": 64},
    ),
    Row(
        "GPT-3 175B",
        f"{GPT}:gpt3-175b",
        ("v5p:4x4x8",),
        PADDED | TENSOR | {"batch_size": 1536, "accum": 24},
    ),
    Row(
        "GPT-3 175B, mesh axis of 4",
        f"{GPT}:gpt3-175b",
        ("v5p:4x4x4", "v5p:2x4x4"),
        PADDED
        | TENSOR
        | {"parallel.mesh": (("data", -1), ("model", 4))}
        | {"batch_size": 1536, "accum": 48},
    ),
    Row(
        "ViT-22B",
        IMAGENET.format("vit") + ":22B/14",
        ("v5p:2x2x2", "v5p:2x2x1"),
        {"accum": 2},
    ),
    Row("ViT-G/14", IMAGENET.format("vit") + ":G/14", ("v5e:2x2",), {"accum": 8}),
    Row(
        "Transformer big",
        "configs/transformer/translation.py:big",
        ("v5e:2x2",),
        {"model.remat": "full"},
    ),
    Row("MAE ViT-H/14", IMAGENET.format("mae") + ":H/14", ("v5e:2x2",), {"accum": 4}),
    Row(
        "CLIP ViT-L/14",
        "configs/clip/pairs.py:L/14",
        ("v5e:8x8", "v5e:4x8"),
        {"model.remat": "full"} | CUT,
    ),
    Row("T5 11B", f"{T5}:11b", ("v5p:2x2x1",), {"accum": 16}),
    Row(
        "ResNet-50, batch 8,192",
        IMAGENET.format("resnet") + ":50",
        ("v5e:4x8", "v5e:4x4", "v5e:2x4"),
        {"batch_size": 8192},
    ),
    Row(
        "GPT-2 XL on v6e",
        f"{GPT}:gpt2-xl",
        ("v6e:2x2",),
        PADDED | {"accum": 16},
        effort=None,
    ),
    Row(
        "GPT-2 on two slices",
        f"{GPT}:gpt2",
        ("v5e:2x2",),
        PADDED | {"batch_size": 64},
        slices=2,
    ),
)

# GPT-2 with 8 rows of 1,024 tokens on every chip.
CHIPS = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
WEAK = tuple(
    Row(
        f"{chips} chips",
        f"{GPT}:gpt2",
        (topology,),
        {"model.vocab_size": 50304, "batch_size": 8 * chips},
    )
    for chips, topology in CHIPS.items()
)


def first(name: str) -> Row:
    """A row of the published sizes, on the first of its slices."""
    row = next(row for row in FIT if row.name == name)
    return row._replace(topologies=row.topologies[:1])


# The same where the compiler leaves a product whole instead of computing it in pieces
# as its operand's parts come in. On 64 chips and more it does so of itself.
WHOLE_PRODUCTS = "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"
LARGEST = ("GPT-2 XL", "ViT-22B", "GPT-3 175B", "GPT-3 175B, mesh axis of 4")
PRODUCTS = tuple(
    row._replace(name=f"{row.name}, products whole", libtpu=WHOLE_PRODUCTS)
    for row in (*WEAK[:2], *map(first, LARGEST))
)
KERNEL = {"model.implementation": "flash"}  # attention's, for TPUs
XL = next(row for row in PRODUCTS if row.name.startswith("GPT-2 XL"))
PRODUCTS += (XL._replace(name=f"{XL.name}, flash", changes={**XL.changes, **KERNEL}),)

# On 4 chips of v5e, each with a quarter of the state and of the batch.
SMALL = PADDED | {"batch_size": 32, "model.remat": None}
FULL = SMALL | {"model.remat": "full"}
BF16 = {"optim.params_dtype": "bfloat16"}
ALONE = {"optim.masters": False}
WHOLE = {"parallel.params": "replicate"}
AWAY = {"parallel.offload": "optimizer"}
CHUNK = {"objective.chunk": 128}
MEMORY = tuple(
    Row(name, f"{GPT}:gpt2", ("v5e:2x2",), changes)
    for name, changes in (
        ("remat full, chunked vocabulary", FULL | CHUNK),
        ("remat full", FULL),
        ("remat dots", SMALL | {"model.remat": "dots"}),
        ("no remat", SMALL),
        ("remat full, whole copies", FULL | WHOLE),
        ("remat full, 4 microbatches", FULL | {"accum": 4}),
        ("remat full, adafactor", FULL | {"optim.name": "adafactor"}),
        ("remat full, float32", FULL | {"model.dtype": "float32"}),
        ("remat full, no scan", FULL | {"model.scan": False}),
        ("remat full, bfloat16 and masters", FULL | BF16),
        ("remat full, bfloat16, rounded by chance", FULL | BF16 | ALONE),
        ("remat full, offload", FULL | AWAY),
        ("remat full, whole copies, offload", FULL | WHOLE | AWAY),
        ("chunked vocabulary, offload", FULL | CHUNK | AWAY),
    )
)
KEPT = "remat full, buffers kept"
MEMORY += (Row(KEPT, f"{GPT}:gpt2", ("v5e:2x2",), FULL, keep=True),)

# Attention by the plain code, which is None, and by the kernel. It has no dropout,
# which BERT's and ViT's papers have there.
PLAIN = {"model.implementation": None}
LONG = {"data.length": 8192, "model.max_length": 8192, "batch_size": 4}
NO_DROPOUT = {"model.attention_dropout": 0.0}
LARGE = REMAT | {"accum": 4} | NO_DROPOUT
ATTENTION = tuple(
    Row(f"{name}, {how}", config, ("v5e:2x2",), changes | way)
    for name, config, changes in (
        ("GPT-2", f"{GPT}:gpt2", FULL),
        ("GPT-2 without remat", f"{GPT}:gpt2", SMALL),
        ("GPT-2, chunked vocabulary", f"{GPT}:gpt2", FULL | CHUNK),
        ("GPT-2, 8,192 tokens a row", f"{GPT}:gpt2", FULL | LONG),
        ("BERT large", f"{BERT}:large", LARGE),
        ("ViT-L/16", IMAGENET.format("vit") + ":L/16", REMAT | CUT | NO_DROPOUT),
    )
    for how, way in (("plain", PLAIN), ("flash", KERNEL))
)
PARTS = {
    "fit": FIT,
    "weak": WEAK,
    "products": PRODUCTS,
    "memory": MEMORY,
    "attention": ATTENTION,
}


def command(row: Row, topology: str) -> list[str]:
    """The words of the call for a row on a slice."""
    flags = [f"--config.{key}={value}" for key, value in row.changes.items()]
    words = ["fmjax.compile", "--config", row.config, "--topology", topology, *flags]
    words += ["--slices", str(row.slices)] if row.slices > 1 else []
    words += ["--keep"] if row.keep else []
    words += [] if row.effort is None else ["--effort", str(row.effort)]
    return [*words, "--tries", "0"]


def call(row: Row, topology: str, seconds: int) -> dict[str, Any]:
    """One call's numbers, or what went wrong."""
    words = command(row, topology)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "cost.json"
        try:
            done = subprocess.run(
                [sys.executable, "-m", *words, "--json", str(file)],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env=os.environ
                | ({"LIBTPU_INIT_ARGS": row.libtpu} if row.libtpu else {}),
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not compiled in {seconds} s"}
        if not file.exists():
            lines = [x for x in done.stderr.splitlines() if x.startswith("fmjax: ")]
            return {"error": (lines or done.stderr.strip().splitlines() or ["?"])[-1]}
        return json.loads(file.read_text("utf-8"))


def due(part: str, lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Row, str]]:
    """(row, slice) to try: the first slice of every row, then the second of those that
    fitted the first, and so on. lines: what is known, which may grow meanwhile.
    """
    rows = PARTS[part]
    for depth in range(max(len(row.topologies) for row in rows)):
        for row in rows:
            slices = row.topologies[: depth + 1]
            if len(slices) <= depth:
                continue
            known = {line["command"]: line["fits"] for line in lines}
            told = [known.get(said(row, topology)) for topology in slices]
            if told[-1] is None and all(told[:-1]):
                yield row, slices[-1]


def said(row: Row, topology: str) -> str:
    """The call for a row on a slice as one types it."""
    flags = f"LIBTPU_INIT_ARGS={shlex.quote(row.libtpu)} " if row.libtpu else ""
    return flags + shlex.join(["python", "-m", *command(row, topology)])


def weak_scaling(lines: Sequence[Mapping[str, Any]]) -> str:
    """A figure: what a chip does and holds, against the same on the fewest chips."""
    rows = sorted(
        (x for x in lines if x["part"] == "weak" and x.get("fits")),
        key=lambda x: x["devices"],
    )
    names = {
        "peak_bytes": "peak HBM a chip",
        "flops_per_device": "FLOPs a chip",
        "hbm_traffic_bytes": "HBM traffic a chip",
    }
    xs = [row["devices"] for row in rows]
    series = {
        words: [(xs, [row[key] / rows[0][key] for row in rows])]
        for key, words in names.items()
    }
    title = "GPT-2, 8 rows of 1,024 tokens a chip"
    return figures.curves(series, "chips (v5e)", f"of that on {xs[0]}", title)


def table(lines: Sequence[Mapping[str, Any]], part: str) -> str:
    """The lines of a part as Markdown, for README.md."""
    heads = (
        "row", "slice", "parameters", "batch", "peak GiB of", "fits", "model PFLOPs",
        "the model's of all", "collectives GiB", "compute, HBM, links: ms",
        "MFU at most", "compile s, effort",
    )  # fmt: skip
    rows = [heads, ("---",) * len(heads)]
    order = [row.name for row in PARTS[part]]
    mine = [line for line in lines if line["part"] == part]
    for line in sorted(mine, key=lambda line: order.index(line["row"])):
        gib = lambda n: f"{n / 2**30:.1f}"  # noqa: E731
        peak = "too large"  # where the compiler does not say by how much
        if "peak_bytes" in line:
            peak = f"{gib(line['peak_bytes'])} / {gib(line['capacity_bytes'])}"
        cells = [line["row"], line["slice"], f"{line['parameters'] / 1e6:,.0f} M"]
        cells += [f"{line['batch_size']:,}", peak, "yes" if line["fits"] else "**no**"]
        cells += [f"{line['model_flops'] / 1e15:.3g}"]
        if line["fits"]:
            given = sum(x["bytes"] for x in line["collectives"].values())
            times = line["seconds_at_least"]
            parts = [f"{1e3 * times[key]:.0f}" for key in ("compute", "hbm", "ici")]
            cells += [f"{line['useful']:.0%}", gib(given), ", ".join(parts)]
            cells += [f"{line['mfu_at_most']:.0%}"]
        else:
            cells += [""] * 4
        effort = line.get("effort")
        effort = "" if effort is None else f", {effort:g}"
        rows.append((*cells, f"{line['compile_seconds']:.0f}{effort}"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=sorted(PARTS))
    parser.add_argument("--only", default="", help="rows whose names have this in them")
    parser.add_argument("--seconds", type=int, default=1800, help="for one call")
    parser.add_argument("--workdir", type=pathlib.Path, default=ROOT)
    given = parser.parse_args()
    file = given.workdir / "results.jsonl"
    read = file.read_text("utf-8").splitlines() if file.exists() else []
    lines = [json.loads(line) for line in read]
    for part in given.part or PARTS:
        for row, topology in due(part, lines):
            if given.only not in row.name:
                continue
            arms.say(f"{part}: {row.name} on {topology}")
            line = {"part": part, "row": row.name, "slice": topology}
            line |= {"command": said(row, topology)}
            line |= call(row, topology, given.seconds)
            if "error" in line:  # to be tried again
                arms.say(f"  {line['error']}")
                continue
            line |= {"packages": {name: metadata.version(name) for name in PACKAGES}}
            for name in ("config", "topology", "loops"):
                line.pop(name, None)
            lines.append(line)
            with open(file, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
    if sum(line["part"] == "weak" and bool(line.get("fits")) for line in lines) > 1:
        arms.drawing(given.workdir / "weak.svg", weak_scaling(lines))
    for part in given.part or PARTS:
        print(f"{table(lines, part)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
