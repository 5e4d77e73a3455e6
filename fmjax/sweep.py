"""Searches a config's fields for the best value of the metric that its runs watch.

python -m fmjax.sweep --config configs/bert/sentiment.py:scratch --study studies/x \\
    --trials 20 [--workers 2] [--search.optim.lr=log:1e-5:1e-3] [--config.steps=500 ...]
python -m fmjax.sweep --study studies/x --show

What to search is said by `get_sweep(arg)` of the config file and by --search flags
(fmjax/search/ranges.py). The objective is `evaluate.metric`, its direction
`evaluate.higher`.
A trial is a `fmjax train` of its own in STUDY/trials/N, whose evaluations are followed;
one that is not promising is stopped as by SIGTERM. Stopped by SIGTERM or SIGINT, a
sweep stops its trials and exits with 75; the same command, also after a kill, goes on
with them where they were, and more --trials add to the study. Where
CUDA_VISIBLE_DEVICES names several devices, they are dealt out to the workers.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import inspect
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import IO, Any

from fmjax import cli, config, files, flags, report
from fmjax.search import ranges, study

TRAIN = (sys.executable, "-m", "fmjax.train")
POLL = 0.2  # seconds between two looks at the trials that run


def examine(
    path: str, overrides: Mapping[str, str], space: Mapping[str, ranges.Range]
) -> dict[str, Any]:
    """What a sweep must know of a config, all of whose ends and choices are checked.

    Each value is put into the config alone and prepared as a run is, with nothing
    allocated. Raises ConfigError naming the field, the value and what is wrong.
    """
    from fmjax import train

    base = config.load(path, overrides)
    parameters = inspect.signature(train.train).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    del defaults["dry_run"]
    config.bind("config", train.train, base)
    setup = train.prepare(defaults | base)
    if not setup.watch.splits:
        raise config.ConfigError("a sweep needs what a run watches: set evaluate")
    for key, one in space.items():
        for value in one.values:
            settings = config.load(path, overrides)
            try:
                config.override(settings, key, repr(value))
                config.bind("config", train.train, settings)
                train.prepare(defaults | settings)
            except config.ConfigError as error:
                raise config.ConfigError(
                    f"searching {key}={value!r}: {error}"
                ) from error
    every = max(setup.each["evaluate"], 1)
    return {
        "settings": json.loads(json.dumps(base)),
        "metric": setup.watch.metric,
        "higher": setup.watch.higher,
        "evaluations": -(-setup.each["all"] // every),
    }


def record(
    path: str,
    overrides: Mapping[str, str],
    space: Mapping[str, ranges.Range],
    choose: Mapping[str, Any],
) -> dict[str, Any]:
    """What study.json begins with; see `examine`, which a process of its own does.

    For this one must not take hold of an accelerator that the trials need.
    """
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        known = pool.submit(examine, path, dict(overrides), dict(space)).result()
    search = {key: [one.kind, list(one.values)] for key, one in space.items()}
    made = {"config": path, "overrides": dict(overrides), "search": search}
    return json.loads(json.dumps(made | dict(choose) | known))


def claim(folder: pathlib.Path, given: Mapping[str, Any]) -> None:
    """Writes sweep.json, or checks that the study there is this one.

    Raises ConfigError listing what differs. The config's path and the trials may.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        files.write_json(path, dict(given))
        return
    old = json.loads(path.read_text("utf-8"))
    changed = [
        f"{key}: {old.get(key)!r} there, {value!r} now"
        for key, value in given.items()
        if key not in ("config", "settings", "overrides") and old.get(key) != value
    ]
    from fmjax.workdir import flat

    before, now = flat(old["settings"]), flat(given["settings"])
    changed += [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise config.ConfigError(
            f"{folder} holds a study of other settings; use another --study, or give "
            "these back: " + "; ".join(changed)
        )


def lock(path: pathlib.Path) -> IO[str] | None:
    """The file, locked until it and every copy of it is closed; None: another has it.

    A child that is given the file keeps the lock when its parent is killed.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


class Going:
    """A trial whose run is going on: this sweep's child, or one that a killed one left.

    Two processes never train in one folder: each holds the folder's lock while it runs.
    """

    def __init__(self, trial: Any, root: pathlib.Path, flags: Sequence[str], env: Any):
        self.trial, self.folder = trial, root / "trials" / str(trial.number)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.began, self.seen = time.monotonic(), 0
        self.child: subprocess.Popen | None = None
        self.code: int | None = None
        self.stopping = False
        file = lock(self.folder / "trial.lock")
        self.left = file is None  # a child of a sweep that was killed still runs
        if file is None:
            return
        with file:
            # What is settled but was not yet told needs no process.
            if (self.folder / "result.json").is_file():
                self.code = 0
            elif "pruned" in trial.user_attrs:
                self.code = 75
            else:
                workdir = ("--workdir", str(self.folder))
                with (self.folder / "log.txt").open("ab") as log:
                    self.child = subprocess.Popen(
                        [*TRAIN, *flags, *workdir],
                        stdout=log,
                        stderr=log,
                        stdin=subprocess.DEVNULL,
                        env=env,
                        pass_fds=[file.fileno()],
                        start_new_session=True,  # a terminal's ^C is passed on below
                    )
                file.truncate(0)
                file.write(str(self.child.pid))

    def over(self) -> bool:
        """Has the process ended? Then `code` is its exit code, None if unknown."""
        if self.child is not None:
            self.code = self.child.poll()
            return self.code is not None
        if self.left:
            file = lock(self.folder / "trial.lock")
            if file is None:
                return False
            file.close()
            done = (self.folder / "result.json").is_file()
            self.code = 0 if done else 75 if "pruned" in self.trial.user_attrs else None
        return True

    def stop(self) -> None:
        """Asks the run, once, to save and end."""
        if self.stopping:
            return
        self.stopping = True
        if self.child is not None:
            self.child.terminate()
        elif self.left and (number := (self.folder / "trial.lock").read_text("utf-8")):
            # The lock is held, so that the process which wrote its number is there.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGTERM)

    def follow(self, metric: str) -> None:
        """Tells Optuna of evaluations that are new; stops a run that is to be pruned.

        Evaluations are counted, not their steps: runs with unlike batches compare.
        """
        path = self.folder / "metrics.jsonl"
        if not path.is_file() or path.stat().st_size == self.seen:
            return
        self.seen = path.stat().st_size
        values = [line[metric] for line in report.read(self.folder) if metric in line]
        frozen = self.trial.study.get_trials(deepcopy=False)[self.trial.number]
        known = len(frozen.intermediate_values)
        for number, value in list(enumerate(values, 1))[known:]:
            self.trial.report(float("nan") if value is None else value, number)
            if "pruned" not in self.trial.user_attrs and self.trial.should_prune():
                self.trial.set_user_attr("pruned", number)
                self.stop()

    def reason(self) -> str:
        """The last line that the process said, or the signal that ended it."""
        if self.code is not None and self.code < 0:
            return f"killed by signal {-self.code}"
        log = self.folder / "log.txt"
        lines = log.read_text("utf-8", "replace").split("\n") if log.is_file() else []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"exit code {self.code}"


def settle(one: Going, known: Any) -> bool:
    """Tells Optuna how a trial ended; False where it is to go on, now or later."""
    trial, states = one.trial, study.library().trial.TrialState
    spent = trial.user_attrs.get("seconds", 0.0) + time.monotonic() - one.began
    trial.set_user_attr("seconds", spent)
    if one.code == 0:
        result = json.loads((one.folder / "result.json").read_text("utf-8"))
        if result["best"] is not None:
            known.tell(trial, result["best"])
            return True
        trial.set_user_attr("reason", "the watched metric was never a number")
    elif "pruned" in trial.user_attrs and (one.code == 75 or one.stopping):
        known.tell(trial, state=states.PRUNED)
        return True
    elif one.code in (75, None):
        return False
    elif one.stopping and one.code < 0:
        return False  # stopped before it listened to signals, or when it no longer did
    else:
        trial.set_user_attr("reason", one.reason())
    known.tell(trial, state=states.FAIL)
    return True


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; no device is taken hold of."""
    came, old = threading.Event(), {}
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGINT):
            old[name] = signal.signal(name, lambda *_: came.set())
    try:
        yield came
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)


def environment(worker: int, workers: int) -> dict[str, str]:
    """A worker's environment variables, with its share of several CUDA devices."""
    found = dict(os.environ)
    visible = [x for x in found.get("CUDA_VISIBLE_DEVICES", "").split(",") if x]
    if len(visible) >= workers > 1:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(visible[worker::workers])
    return found


def sweep(
    path: str,
    folder: str | pathlib.Path,
    *,
    trials: int,
    workers: int = 1,
    overrides: Mapping[str, str] | None = None,
    search: Mapping[str, str] | None = None,
    sampler: str = "tpe",
    pruner: str = "median",
    seed: int = 0,
) -> dict[str, Any]:
    """Runs, or goes on with, the study in `folder` until `trials` are settled.

    path: 'configs/FAMILY/FILE.py:ARG'; overrides, search: the flags' fields and texts.
    sampler, pruner: names of `study.SAMPLERS` and `study.PRUNERS`. Returns study.json,
    with `status` 'done' or 'stopped' (by a signal: call again to go on). Raises
    ConfigError, before any trial, where a field or a range is wrong, another sweep
    runs in the folder, or it holds a study of other settings.
    """
    root, overrides = pathlib.Path(folder), dict(overrides or {})
    if trials < 1 or workers < 1:
        raise config.ConfigError(f"--trials={trials} --workers={workers}: 1 or more")
    study.sampler(sampler, seed, 0, False)
    study.pruner(pruner, 1)
    config.load(path, overrides)  # a file that is not there is said at once
    space = ranges.collect(path, search or {}, overrides)
    choose = {"sampler": sampler, "pruner": pruner, "seed": seed}
    given = record(path, overrides, space, choose)
    root.mkdir(parents=True, exist_ok=True)
    own = lock(root / "lock")
    if own is None:
        raise config.ConfigError(f"another sweep is running in {root}")
    with own, signals() as asked:
        claim(root, given)
        known = study.open_study(
            root, given["higher"], study.pruner(pruner, given["evaluations"])
        )
        run(root, given, known, space, trials, workers, asked)
        whole = study.write(root, given, known)
    study.draw(root, whole)
    return whole | {"status": "stopped" if asked.is_set() else "done"}


def run(
    root: pathlib.Path,
    given: Mapping[str, Any],
    known: Any,
    space: Mapping[str, ranges.Range],
    trials: int,
    workers: int,
    asked: threading.Event,
) -> None:
    """Keeps `workers` trials going until `trials` are settled, or a signal has come."""
    optuna = study.library()
    running = (optuna.trial.TrialState.RUNNING,)
    left = known.get_trials(deepcopy=False, states=running)
    waiting = collections.deque(optuna.trial.Trial(known, t._trial_id) for t in left)
    going: dict[int, Going] = {}  # by worker
    flags = ["--config", given["config"]]
    flags += [f"--config.{key}={text}" for key, text in given["overrides"].items()]
    while True:
        for worker in set(range(workers)) - set(going):
            made = len(known.get_trials(deepcopy=False))
            if asked.is_set() or not (waiting or made < trials):
                break
            number = waiting[0].number if waiting else made
            known.sampler = study.sampler(
                given["sampler"], given["seed"], number, workers > 1
            )
            trial = waiting.popleft() if waiting else known.ask()
            chosen = {key: one.suggest(trial, key) for key, one in space.items()}
            own = [f"--config.{key}={value!r}" for key, value in chosen.items()]
            env = environment(worker, workers)
            going[worker] = Going(trial, root, [*flags, *own], env)
            say(f"trial {trial.number}: {' '.join(own)}")
        if not going:
            return
        time.sleep(POLL)
        for worker, one in list(going.items()):
            ended = one.over()
            one.follow(given["metric"])  # after that: nothing said last is missed
            if asked.is_set():
                one.stop()
            if ended:
                del going[worker]
                if settle(one, known):
                    whole = study.write(root, given, known)
                    row = whole["trials"][one.trial.number]
                    why = row.get("reason", row["value"])
                    say(f"trial {row['trial']}: {row['state']}, {why}")
                else:
                    waiting.append(one.trial)


def say(text: str) -> None:
    """A line on the console."""
    print(text, file=sys.stderr, flush=True)


def show(folder: str | pathlib.Path) -> str:
    """A study's table, as it is now, whether a sweep is running there or not.

    Raises ConfigError where there is no study.
    """
    root = pathlib.Path(folder)
    if not (root / "sweep.json").is_file() or not (root / "study.db").is_file():
        raise config.ConfigError(f"{folder} is no study: no sweep.json and study.db")
    given = json.loads((root / "sweep.json").read_text("utf-8"))
    rows = study.trials(study.open_study(root, given["higher"]))
    return study.table(rows, given["metric"], given["higher"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.bare_parser(__doc__)
    parser.add_argument(
        "--config", help="configs/FAMILY/FILE.py[:ARG]; needed, but for --show"
    )
    parser.add_argument("--study", required=True, help="the study's folder")
    parser.add_argument("--trials", type=int, default=20, help="how many in all (20)")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time (1)")
    parser.add_argument(
        "--sampler", default="tpe", help=f"{', '.join(study.SAMPLERS)} (tpe)"
    )
    parser.add_argument(
        "--pruner", default="median", help=f"{', '.join(study.PRUNERS)} (median)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the sampler's (0)")
    parser.add_argument(
        "--show",
        action="store_true",
        help="print the table as it is, and search nothing",
    )
    words = list(sys.argv[1:] if argv is None else argv)
    words, overrides = cli.split_overrides(words)
    words, search = cli.split_overrides(words, "--search.")
    given = parser.parse_args(words)
    if given.show:
        print(show(given.study), end="")
        return 0
    if not given.config:
        parser.error("--config is needed, unless --show")
    whole = sweep(
        given.config,
        given.study,
        trials=given.trials,
        workers=given.workers,
        overrides=overrides,
        search=search,
        sampler=given.sampler,
        pruner=given.pruner,
        seed=given.seed,
    )
    print(study.table(whole["trials"], whole["metric"], whole["higher"]), end="")
    if whole["status"] == "stopped":
        return 75
    return 0 if whole["best"] else 1


if __name__ == "__main__":
    cli.run(main)
