"""`fmjax compile`: on this machine, over an abstract mesh, and for a TPU slice."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from fmjax import compile, config, parallel
from fmjax.config import ConfigError
from fmjax.costs import account, chips, collectives, memory, stand_in
from fmjax.objectives import top1
from tests import runs

GPT = "configs/gpt/language_model.py"
CUT = (
    "--config.parallel.params=fsdp+tensor",
    "--config.parallel.mesh=(('data', -1), ('model', 2))",
)


@pytest.fixture
def kept_cache():
    """The verb turns the cache of compiled programs off, for its process alone."""
    was = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", was)


def run(tmp_path, *words):
    file = tmp_path / "cost.json"
    assert compile.main([*words, "--json", str(file)]) == 0
    return json.loads(file.read_text())


def test_on_this_machine(tmp_path, capsys, kept_cache):
    more = ("--config.model.scan=true", "--config.model.remat=full")
    more += ("--config.model.depth=2",)
    config_ = f"{runs.ROOT}/{GPT}:tiny"
    found = run(tmp_path, "--config", config_, "--devices", "8", *CUT, *more)
    assert found["mesh"] == {"data": 4, "model": 2}
    depth, width, mlp, words, tokens = 2, 32, 64, 300, 16 * 16
    matrices = depth * (4 * width * width + 2 * width * mlp)
    attention = depth * 2 * 2 * 16 * width
    once = tokens * (2 * (matrices + words * width) + attention)
    assert found["model_flops"] == 3 * once
    assert list(found["loops"].values()).count(depth) == 2
    # Each layer again on the way back, but for the last product of each.
    again = tokens * (2 * (matrices - depth * width * mlp) + attention)
    assert found["flops_per_device"] == (3 * once + again) / 8
    assert found["useful"] == pytest.approx(3 * once / (3 * once + again))
    assert any("over model" in name for name in found["collectives"])
    assert any("over data" in name for name in found["collectives"])
    assert found["argument_bytes"] == pytest.approx(found["state_bytes"], rel=0.05)
    assert found["largest_arrays"][0]["sharding"] == "model, data"
    printed = capsys.readouterr().out
    assert "model FLOPs" in printed
    assert "embed/tokens/embedding" in printed
    assert "seconds_at_least" not in found, "no roofline of a CPU is known"


@pytest.mark.parametrize("more", [0, 3])
def test_collectives_that_are_not_listed_are_counted(more):
    kinds = {
        f"all-gather over axis{i}": {"bytes": 2**20 * (20 - i), "times": i + 1}
        for i in range(8 + more)
    }
    found = {"mesh": {"data": 4}, "devices": 4, "parameters": 1, "batch_size": 4}
    found |= {"model_flops": 1, "state_bytes": 1, "fits": True, "compile_seconds": 1}
    found |= {f"{name}_bytes": 1 for name in ("argument", "temporary", "code")}
    found |= {"flops_per_device": 1, "useful": 1, "hbm_traffic_bytes": 1}
    found |= {"loops_of_unknown_length": [], "largest_arrays": []}
    text = account.compiled_table(found | {"collectives": kinds})
    assert text.count("all-gather over axis") == 8
    line = [x.split() for x in text.splitlines() if " more " in x]
    # 12 + 11 + 10 MiB in 9 + 10 + 11.
    words = ["and", "3", "more", "33.00", "MiB", "in", "30"]
    assert [[w for w in x if w != "│"] for x in line] == ([words] if more else [])


def test_of_devices_that_are_nowhere(tmp_path, capsys, kept_cache):
    paper = f"{runs.ROOT}/configs/bert/pretrain.py:large"
    shallow = "--config.model.depth=2"
    found = run(tmp_path, "--config", paper, "--devices", "256", shallow)
    assert found["mesh"] == {"data": 256}
    assert "fits" not in found, "nothing was compiled"
    tokens, width, depth, words = 256 * 512, 1024, 2, 30522
    matrices = depth * (4 * width**2 + 8 * width**2)
    attention = depth * 2 * 2 * 512 * width
    head = 256 * 77 * 2 * (width**2 + words * width) + 256 * 2 * (width**2 + 2 * width)
    once = tokens * (2 * matrices + attention) + head
    assert found["model_flops"] == 3 * once
    embedded = (words + 512 + 2 + depth * 12 * width) * width
    assert found["parameters"] == pytest.approx(embedded + 2 * width**2, rel=0.01)
    cut = [row for row in found["largest_arrays"] if row["sharding"] != "whole"]
    assert cut[0]["bytes"] * 256 == 4 * cut[0]["shape"][0] * cut[0]["shape"][1]
    with pytest.raises(ConfigError, match="batch_size 256 must divide by 512"):
        compile.main(["--config", paper, "--devices", "512"])


def test_what_a_model_costs_whatever_surrounds_it():
    """pmap's batches have a dimension more; a transform's net is inside of it."""
    lora = {"transforms": {"lora": {"rank": 2}}}
    for around in ({}, lora):
        given = runs.tiny(GPT) | around | {"evaluate": None}
        count = lambda **more: compile.measure(given | more, 8)["model_flops"]  # noqa: E731, B023
        plain = count()
        assert count(parallel={"how": "pmap"}) == plain
        assert count(model=given["model"] | {"remat": "full"}) == plain


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_devices_are_refused(count):
    words = ["--config", f"{runs.ROOT}/{GPT}:tiny", "--devices", count]
    with pytest.raises(ConfigError, match=f"--devices {count}: 1 or more are needed"):
        compile.main(words)


def test_no_slices_are_refused(kept_cache):
    words = ["--config", f"{runs.ROOT}/{GPT}:tiny", "--devices", "8", "--slices", "0"]
    with pytest.raises(ConfigError, match=r"parallel\.slices=0"):
        compile.main(words)


def test_without_a_tpu_compiler_it_says_what_to_install(monkeypatch):
    def missing(**fields):
        raise RuntimeError("JAX TPU support not installed; cannot generate topology.")

    from jax.experimental import topologies

    monkeypatch.setattr(topologies, "get_topology_desc", missing)
    with pytest.raises(ConfigError, match=r"pip install 'fmjax\[tpu\]'"):
        compile.devices_of("v5e:4x4")


tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install 'fmjax[tpu]'",
)


@tpu
@pytest.mark.slow
def test_for_a_tpu_slice(tmp_path, capsys, kept_cache):
    config_ = f"{runs.ROOT}/{GPT}:tiny"
    more = ("--config.model.scan=true", "--config.model.dtype=bfloat16")
    words = ("--topology", "v5e:2x2", *CUT, *more)
    found = run(tmp_path, "--config", config_, *words)
    assert found["device"] == "v5e"
    assert found["fits"]
    assert found["capacity_bytes"] == 16 * 2**30
    assert found["flops_per_device"] * 4 == found["model_flops"]
    assert list(found["loops"].values()) == [2, 2]
    assert 0 < found["mfu_at_most"] < 1


@tpu
def test_a_slice_that_is_none():
    with pytest.raises(ConfigError, match=r"--topology v9:2x2: .*known are v5e:4x4"):
        compile.devices_of("v9:2x2")


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (52.00G) exceeds available HBM (15.75G).",
            52,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
            "memory space hbm. Used 32.50G of 15.75G hbm. Exceeded hbm capacity by",
            32.5,
        ),
    ],
)
def test_what_the_compiler_says_of_too_large_a_program(message, needed):
    found = compile.exhausted(message)
    assert found["peak_bytes"] == needed * 2**30
    assert found["capacity_bytes"] == 15.75 * 2**30
    assert not found["fits"]


def test_a_program_that_does_not_fit(tmp_path, capsys, monkeypatch, kept_cache):
    """As it comes to pass: the largest arrays are told, and remedies tried."""

    def too_large(*args):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: ... (52.00G) exceeds available HBM (16.00G)."
        )

    monkeypatch.setattr(parallel, "compile_step", too_large)
    words = ("--config", f"{runs.ROOT}/{GPT}:tiny", "--devices", "8", "--tries", "1")
    found = run(tmp_path, *words)
    assert (found["fits"], found["peak_bytes"]) == (False, 52 * 2**30)
    logits = found["largest_values"][0]
    assert logits["shape"] == [16, 16, 300]
    assert logits["bytes"] == 4 * 16 * 16 * 300
    assert "dot_general" in logits["made by"]
    assert [row["change"] for row in found["tried"]] == ["parameters cut"]
    assert "would it fit with" in capsys.readouterr().out


def test_remedies_are_tried_one_on_top_of_the_other(monkeypatch):
    tried = []

    def measured(settings, there):
        tried.append(settings)
        return {"fits": settings["accum"] == 2, "peak_bytes": 1}

    monkeypatch.setattr(compile, "measure", measured)
    settings = runs.tiny(GPT)
    rows = compile.fitting(settings, [], tries=8)
    assert [row["change"] for row in rows] == [
        "parameters cut",
        "computed in bfloat16",
        "remat",
        "scan over depth",
        "logits of 128 tokens at a time",
        "2 microbatches",
    ]
    assert [row["fits"] for row in rows] == [False] * 5 + [True]
    last = tried[-1]
    assert last["parallel"]["params"] == "fsdp"
    assert last["model"] | {"remat": "full", "scan": True} == last["model"]
    assert settings["accum"] == 1, "the settings themselves are left alone"
    assert len(compile.fitting(settings, [], tries=2)) == 2


def test_only_what_a_kernel_can_compute_is_given_one():
    def told(file, platform="tpu", **changes):
        settings = runs.tiny(file)
        settings["model"].update(changes)
        found = memory.remedies(settings, platform=platform)
        return {"model.implementation": "flash"} in [change for _, change in found]

    bert = "configs/bert/pretrain.py"
    assert told(GPT)
    assert told(bert, attention_dropout=0.0)
    assert not told(GPT, "cpu"), "it is for TPUs"
    assert not told(GPT, implementation="flash"), "it is there already"
    long = runs.tiny(GPT)
    long["parallel"] = {"mesh": (("data", -1), ("sequence", 2))}
    offered = [change for _, change in memory.remedies(long, platform="tpu")]
    assert {"model.implementation": "flash"} not in offered, "rows are cut there"
    assert not told(bert, attention_dropout=0.1), "it drops no weights"
    assert not told("configs/t5/pretrain.py"), "it has no biases"
    assert not told("configs/resnet/fashion_mnist.py"), "nothing attends there"


@pytest.mark.parametrize(("platform", "there"), [("cpu", True), ("tpu", False)])
def test_what_another_platform_computes_is_not_among_the_largest(platform, there):
    given = (np.ones((4, 7), np.float32), np.zeros((4,), np.int32))
    found = memory.values(top1, given, 20, platform)
    assert any(row["dtype"] == "int8" for row in found) == there


def test_no_logits_are_chunked_twice():
    settings = runs.tiny(GPT)
    settings["objective"]["chunk"] = 64
    assert all("objective.chunk" not in c for _, c in memory.remedies(settings))


@pytest.mark.parametrize("file", runs.CONFIGS)
def test_every_config_has_a_stand_in(file):
    settings = config.load(f"{runs.ROOT}/{file}")
    made = stand_in.settings(settings)
    words = json.dumps([made["data"], made.get("tokenizer")])
    assert "synthetic" in words
    assert made["batch_size"] == settings["batch_size"]
    assert made["inputs"] == settings["inputs"]


V5E = chips.CHIPS["TPU v5 lite"]


def test_bytes_that_a_device_sends():
    def one(kind, groups):
        return collectives.Collective(kind, "x", 1200, groups, 1)

    pairs = ((0, 1, 2, 3), (4, 5, 6, 7))
    assert chips.sent(one("all-gather", pairs), 8) == (900, 0)
    assert chips.sent(one("reduce-scatter", pairs), 8) == (900, 0)
    assert chips.sent(one("all-reduce", pairs), 8) == (1800, 0)
    assert chips.sent(one("all-reduce", ((),)), 8) == (2100, 0)
    assert chips.sent(one("collective-permute", ((0, 1), (1, 2))), 8) == (1200, 0)
    # Over two slices of four: in each first, then a quarter of it between them.
    assert chips.sent(one("all-reduce", ((),)), 8, 2) == (1800, 2 * 1200 / 4 / 2)
    assert chips.sent(one("collective-permute", ((3, 4),)), 8, 2) == (0, 1200)


def test_a_step_takes_as_long_as_its_longest_part():
    gather = collectives.Collective("all-gather", "x", 4 * 10**9, ((0, 1, 2, 3),), 3)
    found = chips.roofline(V5E, 197e12, 819e7, [gather], 4)
    assert found["compute"] == 1
    assert found["hbm"] == 0.01
    assert found["ici"] == pytest.approx(3 * 3e9 / 100e9)
    assert found["dcn"] == 0
    assert found["step"] == 1
