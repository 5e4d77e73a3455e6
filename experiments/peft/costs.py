"""What a step of each method costs, beside one of full fine-tuning."""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax

from experiments.arms import say
from fmjax import files, parallel, train
from fmjax.costs import account


class Step:
    """A run's compiled step with a state and a batch, to be timed."""

    def __init__(self, settings: Mapping[str, Any]):
        # Values from chance: what a step costs does not depend on them.
        setup = train.prepare({**DEFAULTS, **settings, "init_from": None})
        self.batch = parallel.put(setup.train_set.at(0), setup.plan)
        like = parallel.like_batch(setup.sample, setup.plan)
        self.compiled = parallel.compile_step(setup.step, setup.state, like, setup.plan)
        places = jax.tree.map(lambda x: x.sharding, setup.state)
        create = jax.jit(setup.create, out_shardings=places)
        self.state = create(jax.random.key(0))
        params, on = self.state.params, setup.trainable
        learns = jax.tree.map(lambda _: True, params) if on is None else on
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(learns), strict=True)
        memory = self.compiled.memory_analysis()
        self.costs = {
            "parameters": account.count(params),
            "trained": sum(leaf.size for leaf, learnt in pairs if learnt),
            "optimizer_bytes": sum(
                x.nbytes for x in jax.tree.leaves(self.state.opt_state)
            ),
            "flops": account.cost(self.compiled)["flops_per_device"],
            # The state is donated, so that its output lies where its input lay.
            "peak_bytes": memory.argument_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes,
        }

    def seconds(self) -> float:
        """Of processor time, which other work on the machine hardly lengthens."""
        began = time.process_time()
        self.state, _ = self.compiled(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.process_time() - began


DEFAULTS: dict[str, Any] = {"tokenizer": None, "transforms": None, "accum": 1}


def against(
    path: pathlib.Path,
    base: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]],
    *,
    rounds: int,
) -> dict[str, dict[str, float]]:
    """Costs by name: of each of `others`, beside and in turns with a step of `base`.

    trained: parameters; optimizer_bytes; flops and peak_bytes: the compiler's, of a
    step on one device; seconds: of processor time, the median of `rounds` steps;
    _ratio: to `base`, of the seconds the median of the rounds'. Kept in `path`, a
    method at a time.
    """
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if all(name in found for name in others):
        return found
    full = Step(base)
    for name, settings in others.items():
        if name in found:
            continue
        own = Step(settings)
        for step in (full, own):  # the first call is not like the others
            step.seconds()
        turns = [(own.seconds(), full.seconds()) for _ in range(rounds)]
        ratios = {
            f"{key}_ratio": own.costs[key] / full.costs[key]
            for key in ("flops", "peak_bytes", "optimizer_bytes")
        }
        found[name] = (
            own.costs
            | ratios
            | {
                "seconds": statistics.median(a for a, _ in turns),
                "seconds_full": statistics.median(b for _, b in turns),
                "seconds_ratio": statistics.median(a / b for a, b in turns),
                "rounds": rounds,
            }
        )
        files.write_json(path, found)
        say(f"  {name}: {found[name]['seconds_ratio']:.2f} of full fine-tuning's time")
    return found
