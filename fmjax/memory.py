"""Memory that was freed stays with the process, for the next step.

A compiled step's intermediates are one array of XLA's, made for the step and freed
after it. glibc gives an array of that size back to the system, which hands out pages of
zeros for the next one: a page fault for every 4 KB of every step. Told to keep what is
freed, it has them once (experiments/speed says what that is worth).
"""

import ctypes
import importlib.metadata
import importlib.util
import os

# glibc's malloc.h: the heap's end is given back above this much; so many arrays may be
# mapped apart from it; so many heaps, as threads' own hold no large array.
KEEP = {"M_TRIM_THRESHOLD": (-1, -1), "M_MMAP_MAX": (-4, 0), "M_ARENA_MAX": (-8, 1)}


def keep() -> bool:
    """Tells the C library so; True where it listens.

    To be called before jax has made its threads. Nothing is told where the user has
    settled it (GLIBC_TUNABLES, MALLOC_..., or another allocator by LD_PRELOAD), where
    there may be an accelerator, whose steps have no such memory, and outside glibc.
    """
    own = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_")
    if any(name.startswith(own) for name in os.environ) or _accelerated():
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (AttributeError: another library)
    except (AttributeError, OSError, TypeError):
        return False
    return all(library.mallopt(option, value) for option, value in KEEP.values())


def _accelerated() -> bool:
    """Whether jax may find more than a CPU; to ask it would start it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None
