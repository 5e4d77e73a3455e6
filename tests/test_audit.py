"""No socket, no foreign code, no secret: a whole life of a run under an audit hook."""

import base64
import json
import os
import re
import subprocess
import sys

import pytest

from tests.audit import KEYS
from tests.runs import ROOT

NAMES = (
    *("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"),
    *("GITHUB_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "DATABASE_PASSWORD"),
)
SECRETS = {name: f"canary-{i}-{'x' * 20}" for i, name in enumerate(NAMES)}


def audited(*words, env=None):
    return subprocess.run(
        [sys.executable, "-m", "tests.audit", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """(folder, what was seen, what was printed)."""
    folder = tmp_path_factory.mktemp("life")
    done = audited("life", folder, env=SECRETS)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads((folder / "seen.json").read_text("utf-8"))
    return folder, seen, done.stdout + done.stderr


PHASES = ("train", "evaluate", "predict", "report", "reproduce", "export", "import")


@pytest.mark.parametrize("phase", PHASES)
def test_no_socket_is_opened(life, phase):
    """S5. The hook sees Python's sockets, /proc those of any library."""
    _, seen, _ = life
    events = [e for e in seen["seen"].get(phase, []) if not e.startswith("import ")]
    programs = [e for e in events if not e.startswith("subprocess.Popen ('git'")]
    assert programs == []
    assert seen["sockets"] == []


def test_the_audit_sees_sockets_and_programs():
    done = audited("dial")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    events = " ".join(seen["seen"]["begin"])
    for event in ("socket.__new__", "socket.bind", "socket.connect", "os.system"):
        assert event in events
    assert len(seen["sockets"]) == 2


def test_a_config_names_only_what_the_house_has(life):
    """S4. Hostile values are refused, or have no effect; nothing of theirs is run."""
    folder, seen, _ = life
    assert not seen["canary"]
    assert not list(folder.rglob("canary"))
    events = seen["seen"].get("config", [])
    assert [e for e in events if not e.startswith("import fmjax.")] == []
    by_key = {key: [] for key in KEYS}
    for by, key, _, outcome in seen["outcomes"]:
        if by == "read":
            by_key.setdefault(key, []).append(outcome)
    for key, outcomes in by_key.items():
        assert outcomes, key
        # Which class to make and what to compute; the others name code, for nobody.
        free = (
            "auto_map",
            "tokenizer_class",
            "custom_pipelines",
            "quantization_config",
        )
        if key not in free:
            assert not [x for x in outcomes if x.startswith("read:")], key
    (foreign,) = by_key["custom_pipelines"]
    assert "custom_pipelines" in foreign, "a key without a meaning here is told"


def test_secrets_of_the_environment_are_nowhere(life):
    """S7. Neither in a file of the run or the export, nor on the console."""
    folder, _, said = life
    wanted = {}
    for name, secret in SECRETS.items():
        raw = secret.encode()
        wanted[name] = (raw, base64.b64encode(raw)[:-4], raw.hex().encode())
    files = [p for p in folder.rglob("*") if p.is_file()]
    names = {p.name for p in files}
    assert {"config.json", "metrics.jsonl", "report.html", "result.json"} <= names
    for content in (*(p.read_bytes() for p in files), said.encode()):
        for name, forms in wanted.items():
            assert not any(form in content for form in forms), name
    assert re.search(r'"command"', (folder / "run/config.json").read_text())
