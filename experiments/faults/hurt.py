"""Checkpoints that are hurt: kills while saving, flipped bits, files, disks, locks.

Each trial is function(room, trials, random) -> its line of the table.
"""

from __future__ import annotations

import pathlib
import random
import resource
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments.faults import apart
from fmjax import checkpoint
from fmjax.config import ConfigError
from fmjax.keeping import digests, lock
from fmjax.start import resume
from fmjax.step import State


def line(fault: str, trials: int, survived: int, figure: str = "") -> dict[str, Any]:
    """One line of the table."""
    lost = trials - survived
    return {
        "fault": fault, "trials": trials, "survived": survived, "lost": lost,
        "figure": figure,
    }  # fmt: skip


def state(step: int, width: int = 64) -> State:
    """A state that can be told by its step; about 12 * width^2 bytes."""
    key = jax.random.key(step)
    params = {"kernel": jax.random.normal(key, (width, width))}
    moments = jax.tree.map(lambda x: (x * 0.1, x * x), params)
    return State(jnp.array(step), params, {}, moments, key)


def bits(tree: Any) -> dict[str, str]:
    return digests.finish(digests.start(tree))


def abstract() -> Any:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
    return jax.tree.map(shape, jax.eval_shape(state, 0))


def save_for_ever(workdir: str) -> None:
    """Saves a new step as soon as the last is written."""
    store = checkpoint.Checkpoints(workdir)
    step = store.step() or 0
    while True:
        step += 1
        store.save(step, state(step), {"at": step})


def restored(workdir: str) -> list[Any]:
    """[step, its bits are right, what was damaged] of what a run would begin with."""
    store = checkpoint.Checkpoints(workdir)
    if store.step() is None:
        return [None, True, []]
    found, progress = resume.newest(store, abstract())
    step, damaged = int(found.step), store.damaged
    right = bits(found) == bits(state(step)) and progress == {"at": step}
    store.close()
    return [step, right, damaged]


def kills(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """SIGKILL at a random moment of a loop of saves; never cleaned up by hand."""
    survived = saved = 0
    for _ in range(trials):
        process, _ = apart.start(save_for_ever, str(room))
        began, before = time.monotonic(), newest(room)
        while newest(room) == before and time.monotonic() - began < 60:
            time.sleep(0.01)
        apart.kill(process, rng.uniform(0, 0.5))
        there = newest(room)
        saved += there - before
        survived += apart.call(restored, str(room)) == [there, True, []]
    what = "SIGKILL in a loop of saves: the newest committed step, bit for bit"
    return line(what, trials, survived, f"{saved} steps saved in between")


def newest(room: pathlib.Path) -> int:
    names = [path.name for path in (room / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def sound(workdir: str) -> None:
    """Two good steps."""
    store = checkpoint.Checkpoints(workdir)
    for step in (1, 2):
        store.save(step, state(step), {"at": step})
    store.close()


def flipped(room: str, trials: int, seed: int) -> list[int]:
    """[refused and named, harmless, silently wrong] of flips of one bit each."""
    rng, counts = random.Random(seed), [0, 0, 0]
    work = pathlib.Path(room)
    for _ in range(trials):
        trial = work / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(work / "sound", trial)
        files = [p for p in sorted((trial / "checkpoints/2").rglob("*")) if p.is_file()]
        sizes = [path.stat().st_size for path in files]
        (path,) = rng.choices(files, sizes)  # every bit as likely as every other
        data = bytearray(path.read_bytes())
        place = rng.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        counts[verdict(trial, path)] += 1
    return counts


def verdict(trial: pathlib.Path, path: pathlib.Path) -> int:
    """0: fell back, naming the file; 1: the newest, and right; 2: anything else."""
    step, right, damaged = restored(str(trial))
    if right and (step, damaged) == (2, []):
        return 1
    named = len(damaged) == 1 and path.name in damaged[0]
    return 0 if right and step == 1 and named else 2


def flips(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """One flipped bit anywhere in the newest step."""
    apart.call(sound, str(room / "sound"))
    refused, harmless, wrong = apart.call(flipped, str(room), trials, rng.random())
    what = "one flipped bit anywhere in the newest step: named, the older step taken"
    figure = f"{refused} refused by name, {harmless} in files without values"
    return line(what, trials, trials - wrong, figure)


def mangled(room: str) -> list[int]:
    """Counts as of `flipped`, of every file cut short, emptied, deleted, swapped."""
    work, counts = pathlib.Path(room), [0, 0, 0]
    step = work / "sound/checkpoints/2"
    names = [p.relative_to(step) for p in sorted(step.rglob("*")) if p.is_file()]
    for how in ("truncated", "emptied", "deleted", "swapped"):
        for name in names:
            other = work / "sound/checkpoints/1" / name
            if how == "swapped" and not other.exists():
                continue  # its name is random: step 1 has no such file
            trial = work / "trial"
            shutil.rmtree(trial, ignore_errors=True)
            shutil.copytree(work / "sound", trial)
            path = trial / "checkpoints/2" / name
            if how == "truncated":
                path.write_bytes(path.read_bytes()[:-1])
            elif how == "emptied":
                path.write_bytes(b"")
            elif how == "deleted":
                path.unlink()
            else:
                shutil.copy(other, path)
            counts[verdict(trial, path)] += 1
    return counts


def files(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Each file of the newest step, hurt in four ways."""
    apart.call(sound, str(room / "sound"))
    refused, harmless, wrong = apart.call(mangled, str(room))
    what = "each file truncated, emptied, deleted, swapped: the same"
    figure = f"{refused} refused by name, {harmless} in files without values, or alike"
    return line(what, refused + harmless + wrong, refused + harmless, figure)


def refuses(room: str, trials: int, seed: float) -> int:
    """How often a workdir whose every step has a flipped bit is refused."""
    rng, refused = random.Random(seed), 0
    work = pathlib.Path(room)
    for _ in range(trials):
        trial = work / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(work / "sound", trial)
        for step in (trial / "checkpoints").iterdir():
            path = rng.choice([p for p in step.glob("state/**/*") if p.is_file()])
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
        try:
            restored(str(trial))
        except ConfigError:
            refused += newest(trial) == 2
    return refused


def all_damaged(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Every step hurt: refused, and nothing begun anew."""
    apart.call(sound, str(room / "sound"))
    refused = apart.call(refuses, str(room), trials, rng.random())
    return line("every step damaged: refused, nothing begun anew", trials, refused)


def fills(workdir: str) -> list[Any]:
    """[an error came, within these seconds, the step before is whole]."""
    store = checkpoint.Checkpoints(workdir)
    store.save(1, state(1), {"at": 1})
    store.last.wait_until_finished()
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, free[1]))
    began, error = time.monotonic(), ""
    try:
        store.save(2, state(2), {"at": 2})
        while not error and time.monotonic() - began < 20:
            store.check()
            time.sleep(0.01)
    except Exception as raised:
        error = str(raised)
    seconds = time.monotonic() - began
    resource.setrlimit(resource.RLIMIT_FSIZE, free)
    return ["File too large" in error, seconds, restored(workdir) == [1, True, []]]


def disk_full(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """A limit on file size met in an asynchronous save."""
    found = [apart.call(fills, str(room / str(i))) for i in range(trials)]
    survived = sum(came and whole for came, _, whole in found)
    most = max(seconds for _, seconds, _ in found)
    what = "disk full in an asynchronous save: an error, the step before whole"
    return line(what, trials, survived, f"the error within {most:.2f} s")


def hold(workdir: str) -> None:
    with lock.held(pathlib.Path(workdir)):
        time.sleep(600)


def take(workdir: str) -> str:
    try:
        with lock.held(pathlib.Path(workdir)):
            return ""
    except ConfigError as error:
        return str(error)


def locks(room: pathlib.Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """A second run on a workdir, and one after the first was killed."""
    survived = 0
    for i in range(trials):
        workdir = room / str(i)
        process, _ = apart.start(hold, str(workdir))
        while not (workdir / "lock").exists() or not (workdir / "lock").read_text():
            time.sleep(0.01)
        refused = f"process {process.pid} on" in apart.call(take, str(workdir))
        apart.kill(process)
        survived += refused and apart.call(take, str(workdir)) == ""
    what = "a second run is refused by name; a killed one's lock is taken over"
    return line(what, trials, survived)
