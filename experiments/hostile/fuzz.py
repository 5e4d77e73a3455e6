"""Reads spoiled files in a process of its own, with little memory.

python -m experiments.hostile.fuzz KIND ... [--files 10000] [--seed 0]

KIND is one of the corpus, or 'bombs'. Prints a line of JSON for each. Exit status 1
where a file was accepted that is malformed, anything but a refusal was raised, or
something ran, was imported or was written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from experiments.hostile import bombs, corpus
from fmjax.data import archives
from fmjax.interop import safetensors as ours
from fmjax.interop import torch_files

MEMORY = 1 << 30  # bytes of address space on top of what the interpreter and jax have
SECONDS = 5.0  # for any one file

# Events of the interpreter that no reader has a reason for.
RUNS = (
    *("exec", "compile", "import", "os.system", "os.exec", "os.fork", "os.posix_spawn"),
    *("os.symlink", "os.link", "os.chmod", "os.chown", "subprocess.Popen", "os.putenv"),
    *("pickle.find_class", "marshal.loads", "ctypes.dlopen", "code.__new__"),
    *("socket.__new__", "socket.connect", "urllib.Request"),
)


class Watch:
    """Notes what the interpreter is asked to do, while it is on."""

    def __init__(self) -> None:
        self.on, self.seen = False, Counter[str]()
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple) -> None:
        if not self.on or event not in RUNS:
            return
        name = str(args[0]).partition(".")[0] if event == "import" else ""
        if name not in sys.stdlib_module_names:
            self.seen[f"{event} {name}".strip()] += 1


def same_as_the_library(path: Path) -> str | None:
    """What is wrong with a safetensors file that was accepted, or None."""
    found, expected = ours.read(path), safetensors.numpy.load(path.read_bytes())
    for name, array in found.items():
        if ".." in name or name.startswith("/") or not name.isprintable():
            return f"the name {name!r}"
        if array.dtype != expected[name].dtype or array.shape != expected[name].shape:
            return f"{name} is not what the library reads"
        if array.tobytes() != expected[name].tobytes():
            return f"{name} has other numbers than the library reads"
    return None if set(found) == set(expected) else "other names than the library's"


def numbers_of_the_file(path: Path) -> str | None:
    """What is wrong with a torch file that was accepted, or None."""
    data = path.read_bytes()
    found = torch_files.read(path)
    if sum(array.nbytes for array in found.values()) > 4 * len(data):
        return "more numbers than the file has"
    for name, array in found.items():
        if ".." in name or name.startswith("/") or not name.isprintable():
            return f"the name {name!r}"
        for one in array.reshape(-1)[:64]:
            if one.tobytes() not in data:
                return f"{name} has a number that the file has not"
    return None


def unpacked_inside(path: Path) -> str | None:
    """What is wrong with an archive that was unpacked, or None."""
    out = path.parent / "out"
    written = archives.unpack(path, out, max_bytes=1 << 24, max_members=1000)
    found = []
    for folder, folders, names in os.walk(out):
        for name in (*folders, *names):
            mode = (Path(folder) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                return f"{name} is neither file nor folder"
        found += [str((Path(folder) / name).relative_to(out)) for name in names]
    if sorted(found) != written:
        return "other files than it says"
    return None if len({x.casefold() for x in found}) == len(found) else "two alike"


TORCH = ("torch", "torch-program", "torch-older")
READERS: dict[str, Callable[[Path], str | None]] = {
    "safetensors": same_as_the_library,
    **dict.fromkeys(TORCH, numbers_of_the_file),
    **dict.fromkeys(("zip", "tar", "tar.gz", "tar.xz", "deb"), unpacked_inside),
}


def limit_memory(more: int) -> None:
    """The process may take `more` bytes than it has, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


class Trial:
    """One reader, and what came of the files it was given."""

    def __init__(self, room: Path, watch: Watch):
        self.room, self.watch = room, watch
        self.wrong: list[str] = []
        self.refused = self.accepted = 0
        self.longest, self.peak = 0.0, peak_memory()

    def __call__(self, kind: str, name: str, path: Path) -> str:
        """Reads a file, and notes what is not as it should be; 'refused: why' or ''."""
        began, answer = time.process_time(), ""
        self.watch.on = True
        try:
            bad = READERS[kind](path)
            self.watch.on = False
            self.accepted += 1
            if bad is not None:
                self.wrong.append(f"{name} was accepted: {bad}")
        except (ValueError, KeyError) as error:
            # archives.Refused is a ValueError; KeyError says that no member matches
            self.watch.on = False
            self.refused += 1
            answer = f"refused: {error}"
            if path.name not in answer:
                self.wrong.append(f"{name}: the error does not name the file: {error}")
        except BaseException as error:
            self.watch.on = False
            self.wrong.append(f"{name}: {type(error).__name__}: {error}"[:300])
        spent = time.process_time() - began
        self.longest = max(self.longest, spent)
        if spent > SECONDS:
            self.wrong.append(f"{name} took {spent:.1f} s")
        path.unlink()
        out = self.room / "out"
        if out.exists():
            clear(out)
            out.rmdir()
        if left := sorted(p.name for p in self.room.iterdir()):
            self.wrong.append(f"{name} left {left}")
            clear(self.room)
        return answer

    def result(self, kind: str, **more: Any) -> dict[str, Any]:
        seen = [f"{count} times {event}" for event, count in self.watch.seen.items()]
        self.watch.seen.clear()
        return {
            "kind": kind,
            "files": self.refused + self.accepted,
            **more,
            "refused": self.refused,
            "accepted": self.accepted,
            "wrong": (self.wrong + seen)[:20],
            "longest_ms": round(self.longest * 1000, 1),
            "memory_mb": round((peak_memory() - self.peak) / 2**20, 1),
        }


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def spoiled(
    kind: str, made: Path, trial: Trial, files: int, seed: int
) -> dict[str, Any]:
    """The counts of `files` spoiled files of a kind."""
    make, chance = corpus.spoiler(kind, made), random.Random(seed)
    for number in range(files):
        path = trial.room / "spoiled-file"
        path.write_bytes(make(chance))
        trial(kind, f"file {number}", path)
    return trial.result(kind, seed=seed)


def exploded(trial: Trial) -> dict[str, Any]:
    """The counts of the bombs, all of which must be refused."""
    for name, (kind, write) in bombs.BOMBS.items():
        path = trial.room / f"bomb-{kind}"
        write(path)
        if not trial(kind, name, path):
            trial.wrong.append(f"{name} was not refused")
    return trial.result("bombs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=(*corpus.KINDS, "bombs"))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    np.seterr(all="ignore")  # numbers of spoiled files are of all sorts
    failed, watch = False, Watch()
    with tempfile.TemporaryDirectory() as scratch:
        made, room = Path(scratch, "made"), Path(scratch, "room")
        made.mkdir()
        room.mkdir()
        os.chdir(room)  # a canary with a bare name would land here
        for kind in corpus.KINDS:  # warms everything up
            path = room / "honest"
            path.write_bytes(corpus.honest(kind, made))
            if (bad := READERS[kind](path)) is not None:
                raise AssertionError(f"the honest {kind} file: {bad}")
            clear(room)
        limit_memory(MEMORY)
        for kind in given.kinds:
            trial = Trial(room, watch)
            if kind == "bombs":
                found = exploded(trial)
            else:
                found = spoiled(kind, made, trial, given.files, given.seed)
            print(json.dumps(found), flush=True)
            failed = failed or bool(found["wrong"])
        os.chdir("/")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
