"""For every test: eight simulated devices, quick compiles, programs kept."""

import gc
import importlib.metadata
import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling, not computing, is what tests of tiny shapes wait for. LLVM leaves the code
# as it is, and it is made directly, not by way of MLIR: a third of the time. A jaxlib
# ends where it does not know a flag, so a later one is asked for what it surely has.
DIRECTLY = (
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else ""
)
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + DIRECTLY
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path.home() / ".cache" / "fmjax" / "xla-tests"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Traced programs are millions of small objects, and the collector looks at all of them
# again and again; what is imported stays.
import hypothesis  # noqa: E402
import jax  # noqa: E402, F401  after the settings it reads

# A first call compiles, on a machine with other work: no time is asserted.
hypothesis.settings.register_profile("fmjax", deadline=None)
hypothesis.settings.load_profile("fmjax")

gc.freeze()
gc.set_threshold(100_000, 50, 1000)
