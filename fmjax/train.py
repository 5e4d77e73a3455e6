"""The loop: one for every model, objective and data set.

python -m fmjax.train --config configs/bert/sentiment.py --workdir runs/x
                      [--config.optim.lr=1e-4 ...] [--dry_run]

--config.a.b=value sets the config's field a.b; a wrong name is refused, and the valid
ones are listed. Stopped by SIGTERM or SIGINT, a run saves and exits with 75; the same
command goes on where it was. Given again when the run is finished, it prints the result
and trains nothing. --dry_run needs no --workdir; it prints parameters, shardings, FLOPs
and bytes per device. --profile writes to WORKDIR/profile, for xprof or Perfetto.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fmjax import (
    bits,
    cli,
    config,
    copies,
    files,
    flags,
    flash,
    offload,
    sharding,
    watching,
)
from fmjax import checkpoint as checkpoints
from fmjax import optim as optimizers
from fmjax import parallel as devices
from fmjax import report as reports
from fmjax import step as stepping
from fmjax import workdir as workdirs
from fmjax.costs import account, memory, trace
from fmjax.costs import clock as clocks
from fmjax.data import batches
from fmjax.keeping import guard as guards
from fmjax.keeping import ledger, lock, signals, watchdog
from fmjax.start import frozen, resume


class Saving(NamedTuple):
    """Checkpoints: the newest `keep`, and apart from them the best weights."""

    every: int | str = "1000 steps"
    keep: int = 2
    trained_only: bool = False  # frozen parameters are got again from where they came


class Log(NamedTuple):
    """Records are means over the steps since the last record."""

    every: int | str = "50 steps"
    tensorboard: bool = False
    wandb: str | None = None  # project
    mlflow: str | None = None  # experiment
    ledger: bool = False  # which rows each step was given (fmjax/keeping/ledger.py)


# Arguments of train that are no settings.
OWN = ("workdir", "dry_run", "stop_at", "profile")


class Setup(NamedTuple):
    """A config, found and checked, with nothing allocated on any device."""

    parts: config.Parts
    plan: devices.Plan
    watch: watching.Watch
    log: Log
    saving: Saving
    guard: guards.Guard
    trainable: Any  # a tree of bools like the parameters, or None: all of them
    train_set: batches.Batches
    eval_sets: dict[str, batches.Batches]
    each: dict[str, int]  # steps between evaluations, saves and log records; in all
    apply: Callable
    create: Callable  # key -> State
    step: Callable  # (state, batch) -> (state, sums)
    rate: Callable  # step -> learning rate
    state: Any  # shapes with shardings
    sample: Any  # a batch, its shapes


def prepare(settings: Mapping[str, Any], there: Any = None) -> Setup:
    """Finds and checks all that `train`'s settings name. Raises config.ConfigError.

    there: devices that need not be here, or their number; None: this machine's.
    """
    batch_size, seed = settings["batch_size"], settings["seed"]
    asked = settings["evaluate"] or {"splits": ()}
    watch = config.bind("evaluate", watching.Watch, asked)()
    saving = config.bind("checkpoint", Saving, settings["checkpoint"])()
    log = config.bind("log", Log, settings["log"])()
    guard = guards.settings(settings.get("guard"))
    plan = config.bind("parallel", devices.plan, settings["parallel"])(there)
    devices.check_batch(batch_size, plan, settings["accum"])
    parts = config.assemble(settings)

    known, asked = parts.data("train").classes, parts.model.get("classes")
    if known and asked and len(known) != asked:
        raise config.ConfigError(
            f"model.classes is {asked}, but {settings['data']['name']} has "
            f"{len(known)} classes ({', '.join(known[:12])}); set model.classes=None "
            "to follow it"
        )
    load = functools.partial(
        batches.Batches,
        inputs=parts.inputs,
        size=batch_size,
        host=jax.process_index(),
        hosts=jax.process_count(),
    )
    with config.blaming("data and inputs"):
        train_set = load(parts.data("train").rows, seed=seed)
        eval_sets = {s: load(parts.data(s).rows, seed=None) for s in watch.splits}
        # Two examples a host tell the shapes of a batch of thousands.
        few = load(parts.data("train").rows, size=2 * jax.process_count(), seed=seed)
        sample = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, few.at(0)))
        whole = lambda x: x.update(shape=(train_set.local, *x.shape[1:]))  # noqa: E731
        sample = jax.tree.map(whole, sample)

    steps = functools.partial(
        config.duration, batch_size=batch_size, examples=train_set.examples
    )
    total = steps(settings["steps"], "steps")
    if total < 1:
        raise config.ConfigError(f"steps={settings['steps']!r} is no step at all")
    steps = functools.partial(steps, total=total)
    each = {
        "all": total,
        "evaluate": steps(watch.every, "evaluate.every") if watch.splits else 0,
        "save": steps(saving.every, "checkpoint.every"),
        "log": max(steps(log.every, "log.every"), 1),
    }

    one = jax.tree.map(lambda x: x.update(shape=(1, *x.shape[1:])), sample["inputs"])
    init = jax.jit(lambda key: stepping.init(parts.net, one, key))  # traced once
    with config.blaming("model"):
        params = jax.eval_shape(init, jax.random.key(0))["params"]
    tx, rate, trainable = optimizers.make(params, total, steps, **settings["optim"])
    if saving.trained_only:
        frozen.thin(params, trainable)
    apply = flash.placed(stepping.pure(parts.net), plan)
    create = functools.partial(stepping.create, init, tx)
    state = jax.eval_shape(create, jax.random.key(seed))
    measure = stepping.measurer(apply, parts.objective)
    # Shapes with their places, so that what is traced here is not traced again later.
    places = devices.shardings(state, state.params, plan)
    placed = devices.abstract(state, places)
    batch = devices.like_batch(sample, plan._replace(how="jit"))
    with config.blaming("objective"):
        measured = jax.eval_shape(measure, placed.params, placed.extras, batch)
    watching.check(watch, measured)
    given = {
        "apply": apply,
        "objective": parts.objective,
        "tx": tx,
        "trainable": trainable,
        "accum": settings["accum"],
    }
    if plan.shards:
        with config.blaming("parallel"):
            traced: Callable = bits.Step(plan.shards, guard.nonfinite, **given)
            jax.eval_shape(traced, state, sample)
    else:
        step: Callable = functools.partial(stepping.train_step, **given)
        held = sharding.constrained(step, plan)
        if guard.nonfinite:
            held = guards.finite_only(held, keep=guard.nonfinite == "skip")
        if plan.offload:
            held = offload.around(held, places)
        traced = jax.jit(held, static_argnames="axis")  # once, whoever asks first
        if settings["accum"] > 1:  # which batch statistics and coupled rows do not bear
            with config.blaming("accum"):
                jax.eval_shape(traced, placed, batch)
    return Setup(
        parts,
        plan,
        watch,
        log,
        saving,
        guard,
        trainable,
        train_set,
        eval_sets,
        each,
        apply,
        create,
        traced,
        rate,
        placed,
        sample,
    )


def train(
    workdir: str | pathlib.Path,
    *,
    model: Mapping,
    objective: Mapping,
    data: Mapping,
    inputs: Mapping,
    optim: Mapping,
    steps: int | str,
    batch_size: int,
    transforms: Mapping | None = None,
    tokenizer: Mapping | None = None,
    accum: int = 1,
    evaluate: Mapping | None = None,
    checkpoint: Mapping | None = None,
    parallel: Mapping | None = None,
    log: Mapping | None = None,
    guard: Mapping | None = None,
    init_from: Mapping | None = None,
    seed: int = 0,
    dry_run: bool = False,
    stop_at: int | None = None,
    profile: str | None = None,
) -> dict[str, Any]:
    """Trains, or goes on with, the run in `workdir`; returns its result.

    The signature is the schema of a config. `batch_size` is over all devices and
    microbatches. Parameters come from the workdir, then `init_from`, then chance. The
    result's `status` is 'done', 'stopped' (by a signal: call again to go on) or
    'dry_run'. stop_at: a step to stop at as if by a signal. profile: steps
    such as '10:15' whose trace goes to workdir/profile.
    Raises config.ConfigError, before anything is written, for a setting that is wrong,
    and where the workdir holds a run of other settings.
    """
    settings = {k: v for k, v in locals().items() if k not in OWN}
    clock, workdir = clocks.Clock(workdir), pathlib.Path(workdir)
    setup = prepare(settings)
    if dry_run:
        return account.dry_run(setup, batch_size)
    with (
        trace.tracing(workdir, profile, setup.each["all"]) as look,
        lock.held(workdir),
        watchdog.watching(workdir, setup.guard) as alive,
        memory.explained(settings, setup),
    ):
        if result := workdirs.claim(workdir, settings, setup.parts):
            return result
        clock.mark("start")
        made = account.compiling(setup)
        clock.mark("compile")
        while True:
            try:
                return run(workdir, settings, setup, stop_at, alive, look, clock, *made)
            except guards.Rollback as back:
                resume.go_back(workdir, setup, back.step)


def run(
    workdir: pathlib.Path,
    settings: Mapping,
    setup: Setup,
    stop_at: int | None,
    alive: Callable,
    look: Callable,
    clock: clocks.Clock,
    compiled: Any,
    cost: dict,
) -> dict[str, Any]:
    """The loop, from where the workdir is. Raises guard.Rollback to be called again."""
    batch_size, each, plan = settings["batch_size"], setup.each, setup.plan
    total, skips = each["all"], guards.skips(workdir)
    store = checkpoints.Checkpoints(workdir, keep=setup.saving.keep)
    state, progress = resume.state(setup, store, workdir, settings)
    kept = functools.partial(resume.kept, setup)
    done = start = int(jax.device_get(state.step))
    evaluated = progress["evaluated"]
    report = reports.Report(
        *(workdir, setup.log, each["log"], total, start, evaluated, settings),
        *(cost, clock),
    )
    report.say(
        f"{workdir}: {account.count(state.params):,} parameters, "
        f"{setup.train_set.examples:,} examples, {total:,} steps of {batch_size} on "
        f"{plan.mesh.size} x {jax.devices()[0].device_kind}, compiled in "
        f"{cost['compile_seconds']:.1f} s, {f'from step {start}' if start else 'new'}"
    )
    for text in store.damaged:
        report.event(start, "damaged", text)
    run_eval = stepping.measurer(setup.apply, setup.parts.objective)
    book = ledger.Ledger(workdir, setup.log.ledger, start)

    def fetch(step):
        rows, batch = setup.train_set.numbered(skips.position(step))
        return rows, devices.put(batch, plan)

    coming = batches.ahead(fetch, start, total)
    watch = guards.Watch(setup.guard, report.event)
    pending = None  # the last step's sums: read while the device does the next step

    def record(flush=False):
        if pending:
            lr = float(setup.rate(pending[0] - 1))
            sums = report.train(*pending, rows=batch_size, lr=lr, flush=flush)
            watch.look(pending[0], sums)

    with (
        signals.preemption() as asked,  # until all is saved
        contextlib.closing(report),
        contextlib.closing(store),
        contextlib.closing(book),
        contextlib.closing(coming),
    ):
        while True:
            alive(done)
            stopped = asked(done) or done == stop_at
            over = done == total or watching.gave_up(setup.watch, progress)
            due = each["evaluate"] and (done % each["evaluate"] == 0 or done == total)
            if due and done > progress["evaluated"] and not stopped:
                record(flush=True)
                pending = None
                with clock.spending("evaluate", state.step):
                    params, numbers = watching.measure(run_eval, setup, state)
                report.evaluation(done, numbers)
                progress, improved = watching.judge(
                    setup.watch, progress, numbers, done
                )
                if improved:
                    with clock.spending("checkpoint", ()):
                        store.save_best(done, kept(params), state.extras)
                over = over or watching.gave_up(setup.watch, progress)
            if (
                over
                or stopped
                or (each["save"] and done % each["save"] == 0 and done > start)
            ):
                record(flush=over or stopped)  # before a state is kept, it is judged
                pending = None
                with clock.spending("checkpoint", state.step):
                    held = state._replace(params=kept(state.params))
                    store.save(done, held, progress)
            if over or stopped:
                break
            rows, batch = report.wait(coming)
            look(done, state)
            named = jax.profiler.StepTraceAnnotation("train", step_num=done)
            with jax.transfer_guard("disallow"), named:
                state, sums = compiled(state, batch)
            book.note(done + 1, rows)
            record()
            store.check()
            done, pending = done + 1, (done + 1, sums)
        if over and not store.best_step():  # nothing was watched: the last is the best
            params = offload.near(copies.averaged(state.opt_state, state.params))
            store.save_best(done, kept(params), state.extras)
    result = {"status": "done" if over else "stopped", "step": done, "steps": total}
    result |= progress | cost
    if over and jax.process_index() == 0:
        files.write_json(workdir / "result.json", result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("--config", required=True, help="configs/FAMILY/FILE.py[:ARG]")
    parser.add_argument("--workdir", default="", help="the run's folder")
    parser.add_argument("--dry_run", action="store_true", help="only say what it costs")
    parser.add_argument("--profile", help="10:15 traces steps 11 to 15")
    given = cli.parse(parser, argv)
    if not given.workdir and not given.dry_run:
        parser.error("--workdir is needed, unless --dry_run")
    settings = config.load(given.config, given.overrides)
    config.bind("config", train, settings)
    own = {"dry_run": given.dry_run, "profile": given.profile}
    with signals.starting():
        result = train(given.workdir, **settings, **own)
    if result["status"] != "dry_run":
        print(json.dumps(result))
    return 75 if result["status"] == "stopped" else 0


if __name__ == "__main__":
    cli.run(main)
