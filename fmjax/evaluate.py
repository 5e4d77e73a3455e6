"""Evaluation over whole sets: every example counts once, and one division at the end.

python -m fmjax.evaluate --workdir runs/x [--split test]
python -m fmjax.evaluate --workdir runs/x --data.name=csv --data.path=other.csv \\
    --same pos=positive --same neg=negative

--data.* flags evaluate on other data than the run's; --same says which of the run's
classes one of theirs is. --metrics is the name of a file in fmjax/metrics/.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fmjax import cli, config, elsewhere, flags, parallel, prompts, step
from fmjax import workdir as workdirs
from fmjax.data import batches


def sums_over(
    run: Callable, params: Any, extras: Any, data: batches.Batches, plan: parallel.Plan
) -> dict[str, float]:
    """Means over the whole set, and `count`: the examples that were counted."""
    plan = plan._replace(how="jit")  # evaluation has no collectives of its own
    found, count = [], 0.0
    for batch in batches.ahead(data.at, 0, len(data)):
        found.append(run(params, extras, parallel.put(batch, plan)))
        count += float(batch["mask"].sum())
    if jax.process_count() > 1:
        count = float(parallel.gather(np.float32(count)).sum())
    return step.means(step.add_sums(jax.device_get(found))) | {"count": count}


def predictions(
    run: workdirs.Run, data: batches.Batches, params: Any, extras: Any
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The objective's predictions {name: [N, ...]} for all N examples, in order.

    And what the examples have beside their inputs: label [N], targets and the like.
    """
    if run.parts.predict is None:
        name = run.settings["objective"]["name"]
        raise config.ConfigError(f"the objective {name!r} makes no predictions")
    plan, found = run.plan._replace(how="jit"), []
    predict = jax.jit(functools.partial(run.parts.predict, run.apply))
    for batch in batches.ahead(data.at, 0, len(data)):
        arrays = dict(predict(params, extras, parallel.put(batch, plan)))
        own = {key: value for key, value in batch.items() if key != "inputs"}
        found.append(parallel.gather((arrays, parallel.put(own, plan))))
    said, given = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    real = given.pop("mask") > 0
    return jax.tree.map(lambda array: array[real], (said, given))


def evaluate(
    workdir: str | pathlib.Path,
    *,
    splits: Sequence[str] = ("test",),
    metrics: Sequence[str] | None = None,
    data: Mapping[str, str] | None = None,
    same: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """{split: numbers} of a trained run, from its best weights.

    The objective's sums first, then each of `metrics`, which are by default those of
    the objective (METRICS in its file). One that takes `train_features` or the like is
    given the training split's predictions, without augmentation; one that takes
    `prompts`, the vectors of the classes' names. Raises ConfigError where a metric
    needs what the objective does not predict, or the rows do not have.
    data, same: other data's settings and classes, as in `elsewhere.on`.
    """
    run = workdirs.open_run(workdir)
    if data:
        run = elsewhere.on(run, data, same or {})
    if metrics is None:
        objective = config.find("objective", run.settings["objective"]["name"])
        metrics = getattr(objective, "METRICS", ())
    compiled = step.measurer(run.apply, run.parts.objective)
    needed = set().union(*map(_needed, metrics))
    results: dict[str, dict[str, Any]] = {}
    for split in splits:
        source = run.parts.data(split)
        rows = run.batches(source.rows)
        params, extras = run.weights(rows.example(0))
        results[split] = sums_over(compiled, params, extras, rows, run.plan)
        if metrics:
            said, given = predictions(run, rows, params, extras)
            known: dict[str, Any] = {**said, **given, "classes": run.classes}
            known |= {"labels": given["label"]} if "label" in given else {}
            known |= {"facts": source.facts, "rows": source.rows}
            if "prompts" in needed:
                known["prompts"] = prompts.classes(run, params, extras)
            if any(name.startswith("train_") for name in needed):
                rows = run.batches(run.parts.data("train").rows)
                said, given = predictions(run, rows, params, extras)
                both = {**said, "labels": given.get("label")}
                known |= {f"train_{k}": v for k, v in both.items() if v is not None}
            for name in metrics:
                results[split] |= {name: measure(name, known)}
    return results


def _needed(metric: str) -> set[str]:
    """What a metric cannot do without, as `train_features` for what fits a probe."""
    return config.required(config.find("metrics", metric).compute)


def measure(metric: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """One metric's numbers from what is known by name, of which it takes its part.

    Raises ConfigError, with the names, where it needs something else.
    """
    compute = config.find("metrics", metric).compute
    given = {key: known[key] for key in config.fields(compute) & set(known)}
    missing = sorted(config.required(compute) - set(given))
    if missing:
        raise config.ConfigError(
            f"the metric {metric!r} needs {', '.join(missing)}; there is "
            f"{', '.join(sorted(known))}. Choose a metric that fits the objective"
        )
    found: dict[str, Any] = compute(**given)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="a trained run's folder")
    parser.add_argument("--split", action="append", help="repeatable (test)")
    parser.add_argument(
        "--metrics", action="append", help="repeatable (the objective's own)"
    )
    parser.add_argument(
        "--same", action="append", default=[], help="THEIRS=OURS, a class; repeatable"
    )
    words = list(sys.argv[1:] if argv is None else argv)
    words, data = cli.split_overrides(words, "--data.")
    given = cli.parse(parser, words)
    splits = given.split or ("test",)
    same = {there: own for there, _, own in (x.partition("=") for x in given.same)}
    results = evaluate(
        given.workdir, splits=splits, metrics=given.metrics, data=data, same=same
    )
    print(json.dumps(results, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    cli.run(main)
