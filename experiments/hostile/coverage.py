"""The long run: files changed by what they reach in the code (coverage-guided fuzzing).

pip install atheris            (a wheel for CPython 3.11 on Linux; not a dependency)
python -m experiments.hostile.coverage KIND [--seconds 3600] [--corpus FOLDER]

Begins with the honest file of the kind, and with what an earlier run left in FOLDER.
Stops at the first file that fools a reader, which is kept as ./crash-... .
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fmjax.data", "fmjax.interop"]):
    from fmjax.data import archives  # noqa: F401
    from fmjax.interop import safetensors, torch_files, torch_program  # noqa: F401

from experiments.hostile import corpus, fuzz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=corpus.KINDS, help="of the files")
    parser.add_argument(
        "--seconds", type=int, default=3600, help="by the clock (%(default)s)"
    )
    parser.add_argument(
        "--corpus", type=Path, help="a folder of files, kept between runs"
    )
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="fmjax-hostile-"))
    room, seeds = scratch / "room", given.corpus or scratch / "corpus"
    room.mkdir()
    seeds.mkdir(parents=True, exist_ok=True)
    (seeds / "honest").write_bytes(corpus.honest(given.kind, scratch))
    words = scratch / "words"
    words.write_text(
        "".join(
            '"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n'
            for token in corpus.TOKENS
            if len(token) <= 64
        )
    )
    (room / "honest").write_bytes(corpus.honest(given.kind, scratch))
    trial = fuzz.Trial(room, fuzz.Watch())
    trial(given.kind, "honest", room / "honest")
    trial.watch.seen.clear()  # encodings, which Python imports when first needed

    def one(data: bytes) -> None:
        path = room / "spoiled-file"
        path.write_bytes(data)
        trial(given.kind, "file", path)
        if trial.wrong or trial.watch.seen:
            raise AssertionError(f"{trial.wrong} {dict(trial.watch.seen)}")

    flags = [f"-max_total_time={given.seconds}", f"-dict={words}", "-max_len=8192"]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    atheris.Setup([sys.argv[0], str(seeds), *flags, "-rss_limit_mb=2048"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
