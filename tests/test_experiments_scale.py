"""The table of compiled configs: its rows can be asked for, and are asked for once."""

import json
import math
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from experiments.scale import run
from fmjax import cli, config, parallel, train
from fmjax.costs import stand_in

ROWS = [(part, row) for part, rows in run.PARTS.items() for row in rows]


def chips(topology):
    return math.prod(map(int, topology.partition(":")[2].split("x")))


@pytest.mark.parametrize(("part", "row"), ROWS, ids=lambda x: getattr(x, "name", x))
def test_rows_are_settings_that_fit_their_slices(monkeypatch, part, row):
    monkeypatch.chdir(run.ROOT.parents[1])
    words = run.command(row, row.topologies[0])
    _, overrides = cli.split_overrides(words)
    settings = stand_in.settings(config.load(row.config, overrides))
    config.bind("config", train.train, settings)
    for topology in row.topologies:
        laid = config.bind("parallel", parallel.plan, settings["parallel"])
        plan = laid(row.slices * chips(topology))
        parallel.check_batch(settings["batch_size"], plan, settings["accum"])
    counts = [chips(topology) for topology in row.topologies]
    assert counts == sorted(counts)[::-1], "the largest slice is tried first"


def test_launchers_use_every_gpu_and_name_every_pod():
    page = (run.ROOT / "README.md").read_text("utf-8")
    # jax gives a process that SLURM began one GPU, whatever the node has.
    asked = re.search(r"--ntasks-per-node=(\d+) --gpus-per-node=(\d+)", page)
    assert asked[1] == asked[2]
    written = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    service, job = yaml.safe_load_all(written)
    name, pod = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": name}}
    assert pod["subdomain"] == service["metadata"]["name"]
    (words,) = pod["containers"][0]["args"]
    assert f"--coordinator {name}-0.{pod['subdomain']}:" in words
    assert f"--processes {job['spec']['completions']} " in words


@pytest.mark.parametrize("code", [0, 69, 75])
def test_slurms_script_asks_to_go_on_after_75_alone(tmp_path, code):
    page = (run.ROOT / "README.md").read_text("utf-8")
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)[1]
    stand_ins = {"srun": f"exit {code}", "scontrol": f'echo "$@" >> {tmp_path}/asked'}
    for name, does in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    there = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "42"}
    done = subprocess.run(["bash", "-c", script], env=there, timeout=60)
    assert done.returncode == code
    asked = tmp_path / "asked"
    assert asked.exists() == (code == 75)
    assert code != 75 or asked.read_text() == "requeue 42\n"


def test_names_are_told_apart():
    names = [(part, row.name) for part, row in ROWS]
    assert len(set(names)) == len(names)


def test_smaller_slices_are_tried_until_one_is_too_small(tmp_path, monkeypatch, capsys):
    calls = []
    told = {"parameters": 10**9, "batch_size": 64, "model_flops": 10**15}
    told |= {"capacity_bytes": 2**34, "compile_seconds": 60}
    fitted = {"useful": 0.75, "mfu_at_most": 0.5, "collectives": {}}
    fitted |= {"seconds_at_least": {"compute": 0.1, "hbm": 0.2, "ici": 0.0}}

    def answer(row, topology, seconds):
        calls.append((row.name, topology))
        if topology == "v5e:2x2":
            return {"fits": False, "peak_bytes": 2**35} | told
        return {"fits": True, "peak_bytes": 2**33, "devices": 4} | told | fitted

    row = run.Row("one", "a.py", ("v5e:4x4", "v5e:2x2", "v5e:1x1"))
    other = run.Row("other", "a.py", ("v5e:8x8",))
    monkeypatch.setattr(run, "call", answer)
    monkeypatch.setattr(run.metadata, "version", lambda name: "1")
    monkeypatch.setitem(run.PARTS, "fit", (row, other))
    words = ["run", "--part", "fit", "--workdir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert run.main() == 0
    assert run.main() == 0, "a second call finds everything done"
    assert calls == [("one", "v5e:4x4"), ("other", "v5e:8x8"), ("one", "v5e:2x2")]
    lines = [
        json.loads(x) for x in (tmp_path / "results.jsonl").read_text().split("\n") if x
    ]
    assert [line["fits"] for line in lines] == [True, True, False]
    printed = capsys.readouterr().out
    assert "| one | v5e:2x2 | 1,000 M | 64 | 32.0 / 16.0 | **no** | 1 |" in printed
    assert "| 8.0 / 16.0 | yes | 1 | 75% | 0.0 | 100, 200, 0 | 50% | 60 |" in printed
    assert lines[0]["command"] == (
        "python -m fmjax.compile --config a.py --topology v5e:4x4 --effort -1.0 "
        "--tries 0"
    )


def test_a_lost_host_is_told_as_it_was():
    """The README's table is the file's."""
    told = (run.ROOT / "README.md").read_text("utf-8")
    found = json.loads((run.ROOT / "two_hosts.json").read_text("utf-8"))
    assert found["runs"]
    for line in found["runs"]:
        equal = "yes, to the bit" if line["equal"] else "**no**"
        cells = f"{line['lost by']} at step {line['steps']}", str(line["exit_code"])
        cells += f"{line['seconds']:.1f} s", str(line["went_on_from"]), equal
        assert f"| {' | '.join(cells)} |" in told


def test_the_figure_is_of_what_was_measured():
    lines = [
        {"part": "weak", "fits": True, "devices": n, "peak_bytes": 8 + n}
        | {"flops_per_device": 5, "hbm_traffic_bytes": 7}
        for n in (16, 4)
    ]
    drawn = run.weak_scaling(lines)
    assert "of that on 4" in drawn
    assert "FLOPs a chip" in drawn


def test_results_are_of_the_rows_there_are():
    file = pathlib.Path(run.ROOT) / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert lines
    told = (run.ROOT / "README.md").read_text("utf-8")
    for part in {line["part"] for line in lines}:
        assert run.table(lines, part) in told
    for line in lines:
        (row,) = [x for x in run.PARTS[line["part"]] if x.name == line["row"]]
        words = run.command(row, line["slice"])
        flags, python, command = line["command"].partition("python -m fmjax.compile ")
        assert python
        assert flags == (f"LIBTPU_INIT_ARGS={row.libtpu} " if row.libtpu else "")
        assert len(command.split("--config.")) == len(row.changes) + 1
        assert words[4] == line["slice"] == command.split()[3]
