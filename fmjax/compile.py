"""Compile a config's train step for a TPU slice, without a TPU, and say what it costs.

    fmjax compile --config configs/bert/pretrain.py:large --topology v5e:4x4
    fmjax compile --config configs/gpt/language_model.py:gpt3-13b \\
        --topology v5p:4x4x4 --config.parallel.params=fsdp+tensor \\
        --config.parallel.mesh="(('data', -1), ('model', 4))" --json cost.json

The real step, by the real TPU compiler (`pip install 'fmjax[tpu]'`): peak memory of a
chip against what it has, operations with loops counted as often as they run, the
model's own operations, collectives by kind and mesh axis, and a roofline. Nothing is
allocated. Data that are not here are stood in for by made-up rows of the same shapes
(--data own: the config's). Where a step does not fit, the largest arrays are listed and
changes that would make it fit are tried.

--devices N compiles for N devices of this machine; where it has fewer, only the rules
are checked, over an abstract mesh.
"""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from fmjax import cli, config, flags, parallel, train
from fmjax.costs import account, chips, hlo, memory, stand_in
from fmjax.costs.collectives import axes_of

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "": 1}


def devices_of(topology: str, slices: int = 1) -> list[Any]:
    """The devices of `slices` slices such as 'v5e:4x4' or 'v5p:4x4x8', in no machine.

    Raises config.ConfigError where there is no TPU compiler, or no such slice.
    """
    from jax.experimental import topologies

    # There is no machine to ask about itself, and no chip to be alone with.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    more = {"num_slices": slices} if slices > 1 else {}
    try:
        made = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **more
        )
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if "not installed" in text:
            raise config.ConfigError(
                "there is no TPU compiler here: pip install 'fmjax[tpu]' (on Linux; no "
                f"TPU is needed). jax says: {text}"
            ) from error
        raise config.ConfigError(
            f"--topology {topology}: {text}; known are v5e:4x4, v5p:4x4x8, v6e:8x8 and "
            "the like"
        ) from error
    return list(made.devices)


def measure(
    settings: Mapping[str, Any],
    there: Any = None,
    *,
    top: int = 8,
    donate: bool = True,
) -> dict[str, Any]:
    """What the train step of a config costs on `there`, devices or their number.

    settings: as `train.train` takes them. A number gives no more than the rules: what
    each device holds, and the model's operations. Where the program does not fit,
    `fits` is False and `largest_values` are the largest arrays that it computes.
    """
    defaults = inspect.signature(train.train).parameters.values()
    whole = {p.name: p.default for p in defaults if p.default is not p.empty}
    setup = train.prepare(whole | dict(settings), there)
    if setup.plan.shards:
        raise config.ConfigError(
            "parallel.determinism='bits' is several programs, each of one device, and "
            "here the costs of one are taken: leave determinism out"
        )
    plan, slices = setup.plan, (settings.get("parallel") or {}).get("slices", 1)
    batch = parallel.like_batch(setup.sample, plan)
    leaves = jax.tree.leaves(setup.state)
    found: dict[str, Any] = {
        "mesh": dict(plan.mesh.shape),
        "slices": slices,
        "devices": plan.mesh.size,
        "batch_size": settings["batch_size"],
        "parameters": account.count(setup.state.params),
        "model_flops": account.model_flops(setup),
        "state_bytes": sum(memory.local(x) for x in leaves if not memory.away(x)),
        "host_bytes": sum(memory.local(x) for x in leaves if memory.away(x)),
        "largest_arrays": memory.largest(setup.state, top),
    }
    if isinstance(there, int):
        return found
    kind = plan.mesh.devices.flat[0].device_kind
    chip = chips.CHIPS.get(kind)
    found |= {"device": chip.name if chip else kind}
    began = time.monotonic()
    try:
        compiled = parallel.compile_step(setup.step, setup.state, batch, plan, donate)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found["compile_seconds"] = time.monotonic() - began
        platform = plan.mesh.devices.flat[0].platform
        given = (setup.state, setup.sample)
        held = memory.values(setup.step, given, top, platform)
        return found | exhausted(str(error)) | {"largest_values": held}
    found["compile_seconds"] = time.monotonic() - began
    room = compiled.memory_analysis()
    cost = hlo.costs(hlo.parse(compiled.as_text()))
    axes = {
        one.name: "+".join(axes_of(one.groups, plan.mesh.shape) or ("unknown axes",))
        for one in cost.collectives
    }
    unknown = [name for name, times in cost.loops if not times]
    found |= {
        "fits": True,
        "peak_bytes": room.peak_memory_in_bytes,
        "argument_bytes": room.argument_size_in_bytes,
        "temporary_bytes": room.temp_size_in_bytes,
        "code_bytes": room.generated_code_size_in_bytes,
        "flops_per_device": cost.flops,
        "useful": found["model_flops"] / max(cost.flops * plan.mesh.size, 1),
        "hbm_traffic_bytes": cost.bytes,
        "collectives": chips.by_axis(cost.collectives, axes),
        "loops": dict(cost.loops),
        "loops_of_unknown_length": unknown,
    }
    if chip:
        times = chips.roofline(
            chip, cost.flops, cost.bytes, cost.collectives, plan.mesh.size, slices
        )
        if slices > 1 and not times["dcn"]:
            # The compiler sends between slices by what is no collective in its text.
            del times["dcn"]
        peak = times["step"] * chip.flops * plan.mesh.size
        found |= {"capacity_bytes": chip.capacity, "seconds_at_least": times}
        found |= {"mfu_at_most": found["model_flops"] / peak}
    return found


def exhausted(message: str) -> dict[str, Any]:
    """What the compiler says it needs for a program that does not fit."""
    size = r"([\d.]+)([KMG]?)"
    used = re.search(rf"Used {size} of {size} hbm", message) or re.search(
        rf"\({size}\) exceeds available HBM \({size}\)", message
    )
    if not used:
        return {"fits": False, "message": message[:2000]}
    number = lambda a, b: round(float(a) * UNITS[b])  # noqa: E731
    needed, there = number(used[1], used[2]), number(used[3], used[4])
    return {"fits": False, "peak_bytes": needed, "capacity_bytes": there}


def fitting(
    settings: Mapping[str, Any], there: Sequence, tries: int
) -> list[dict[str, Any]]:
    """Tries remedies, each on top of the last, until one fits or `tries` are done."""
    rows: list[dict[str, Any]] = []
    changes: dict[str, str] = {}
    platform = there[0].platform if there else None
    for words, change in memory.remedies(settings, platform=platform)[:tries]:
        trial = json.loads(json.dumps(settings))
        for key, text in (changes | change).items():
            config.override(trial, key, text)
        try:
            got = measure(trial, there)
        except config.ConfigError as error:  # a batch that no longer divides, say
            rows.append({"change": words, "overrides": change, "error": str(error)})
            continue
        changes |= change
        kept = ("fits", "peak_bytes", "compile_seconds", "mfu_at_most")
        numbers = {key: got[key] for key in kept if key in got}
        rows.append({"change": words, "overrides": dict(changes)} | numbers)
        if got["fits"]:
            break
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("--config", required=True, help="configs/FAMILY/FILE.py[:ARG]")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--topology", help="for this TPU slice: v5e:4x4, v5p:4x4x8, ...")
    where.add_argument(
        "--devices", type=int, help="for so many devices of this machine"
    )
    parser.add_argument(
        "--slices", type=int, default=1, help="how many such slices (1)"
    )
    parser.add_argument(
        "--data",
        choices=("stand-in", "own"),
        default="stand-in",
        help="made-up rows of the same shapes, or the config's data (stand-in)",
    )
    parser.add_argument(
        "--effort",
        type=float,
        help="the compiler's, from -1 (least) to 1; -1 takes a quarter of the time and "
        "gives a less tuned program, with other memory and traffic (XLA's default)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="do not donate the state's buffers"
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=4,
        help="where it does not fit: how many remedies to try (4)",
    )
    parser.add_argument(
        "--top", type=int, default=8, help="how many of the largest arrays to list (8)"
    )
    parser.add_argument(
        "--json", default="", metavar="FILE", help="also write everything to this file"
    )
    given = cli.parse(parser, argv)
    if given.devices is not None and given.devices < 1:
        raise config.ConfigError(f"--devices {given.devices}: 1 or more are needed")
    if jax.config.jax_platforms is None:  # type: ignore[attr-defined]
        jax.config.update("jax_platforms", "cpu")  # the slice is elsewhere, or nowhere
    settings = config.load(given.config, given.overrides)
    config.bind("config", train.train, settings)
    if given.data == "stand-in":
        settings = stand_in.settings(settings)
    if given.slices != 1:
        settings["parallel"] = (settings["parallel"] or {}) | {"slices": given.slices}
    # What a compilation costs is not told by a program that was kept.
    jax.config.update("jax_enable_compilation_cache", False)
    if given.effort is not None:
        jax.config.update("jax_exec_time_optimization_effort", given.effort)
    there: Any = given.devices
    if given.topology:
        there = devices_of(given.topology, given.slices)
    elif given.devices <= len(jax.devices()):
        there = jax.devices()[: given.devices]
    found = {"config": given.config, "overrides": given.overrides}
    found |= {"topology": given.topology, "data": given.data}
    found |= {"effort": given.effort}
    found |= measure(settings, there, top=given.top, donate=not given.keep)
    if not found.get("fits", True):
        found["tried"] = fitting(settings, there, given.tries)
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(found, indent=2) + "\n")
    print(account.compiled_table(found))
    return 0


if __name__ == "__main__":
    cli.run(main)
