"""`fmjax VERB ...`, which is also `python -m fmjax.VERB ...` with the same flags."""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence

from fmjax import config, memory
from fmjax.flags import VERBS


def split_overrides(
    argv: Sequence[str], prefix: str = "--config."
) -> tuple[list[str], dict[str, str]]:
    """Takes `--config.a.b=value` and `--config.a.b value` out of the arguments."""
    rest, overrides, words = [], {}, list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith(prefix):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix(prefix).partition("=")
        if not equals:
            if not words:
                raise config.ConfigError(f"{word} needs a value: {word}=...")
            value = words.pop(0)
        overrides[key] = value
    return rest, overrides


def parse(made: argparse.ArgumentParser, argv: Sequence[str] | None):
    """Parses, joins the other processes, and turns the compilation cache on.

    `--config.x.y=...` flags are gathered in `overrides` where the parser has --config.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words, overrides = split_overrides(words)
    given = made.parse_args(words)
    if overrides and not hasattr(given, "config"):
        raise config.ConfigError(
            "this verb takes a run's own config, no --config.* flag"
        )
    given.overrides = overrides
    from fmjax import parallel

    cache()
    parallel.start(given.coordinator, given.processes, given.process)
    return given


def cache() -> None:
    """Compiled programs are kept between runs, unless the user chose otherwise.

    And freed memory between steps (`memory.keep`).
    """
    import jax

    memory.keep()
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home) / "fmjax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run(main: Callable[[], int]) -> None:
    """Exits with main's status: 0 done, 2 a setting is wrong, 75 stopped, to go on.

    65 says that the numbers are not finite, 69 that another process is dead or stuck.
    """
    from fmjax.keeping.guard import NonFinite

    try:
        sys.exit(main())
    except NonFinite as error:
        print(f"fmjax: {error}", file=sys.stderr)
        code = 65
    except (config.ConfigError, FileNotFoundError) as error:
        print(f"fmjax: {error}", file=sys.stderr)
        code = 2
    except Exception:
        traceback.print_exc()
        code = 1
    if importlib.import_module("jax").distributed.is_initialized():
        # Threads that wait for the other processes would keep this one from ending.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help") or words[0] not in VERBS:
        asked = words[:1] in (["-h"], ["--help"])
        lines = [f"  {verb:10} {what}" for verb, what in VERBS.items()]
        lines = [
            "usage: fmjax VERB ...",
            "",
            *lines,
            "",
            "fmjax VERB --help: its flags",
        ]
        if words and not asked:
            said = config.suggest(words[0], VERBS)
            lines += ["", f"fmjax: no verb {words[0]!r}; {said}"]
        print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    verb = importlib.import_module(f"fmjax.{words[0]}")
    sys.argv = [f"fmjax {words[0]}", *words[1:]]
    run(lambda: verb.main(words[1:]))
