"""A life of a tiny run in a process that notes what the interpreter is asked to do.

python -m tests.audit life FOLDER | dial

Writes FOLDER/seen.json. Run by tests/test_audit.py: an audit hook cannot be taken away.
"""

import json
import os
import pathlib
import re
import socket
import sys
import threading
import time

DIALLED = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"),
    *("socket.sendto", "socket.sendmsg", "urllib.Request", "http.client.connect"),
    *("ftplib.connect", "smtplib.connect"),
)
RUN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"),
    *("subprocess.Popen", "pickle.find_class", "marshal.load", "ctypes.dlopen"),
)


class Watch:
    """What was asked for, by phase."""

    def __init__(self):
        self.phase, self.seen, self.sockets = "begin", {}, set()
        sys.addaudithook(self.note)
        threading.Thread(target=self.look, daemon=True).start()

    def note(self, event, args):
        what = ""
        if event == "ctypes.dlopen" and args[0] is None:
            return  # no library, but this process itself: fmjax/memory.py
        if event == "import":
            name = str(args[0])
            if name.partition(".")[0] not in sys.stdlib_module_names:
                what = f"import {name}"
        elif event in DIALLED or event in RUN:
            unix = event != "socket.sendto" and isinstance(args[-1], str | bytes)
            if not (event.startswith("socket.") and unix and "connect" in event):
                what = f"{event} {str(args)[:200]}"
        elif event == "socket.__new__" and args[1] != socket.AF_UNIX:
            what = f"{event} {args[1]}"  # asyncio wakes itself through AF_UNIX
        if what:
            self.seen.setdefault(self.phase, []).append(what)

    def look(self):
        """Network sockets of any library, which no audit hook sees, now and then."""
        while True:
            self.sockets |= network_sockets()
            time.sleep(0.02)


def network_sockets():
    """This process's TCP and UDP sockets, as Linux tells."""
    mine = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue  # closed since
        if found:
            mine.add(found[1])
    known = set()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        path = pathlib.Path("/proc/self/net", kind)
        if path.exists():
            known |= {line.split()[9] for line in path.read_text().splitlines()[1:]}
    return mine & known


def life(folder, watch):
    """Train, evaluate, predict, report, reproduce, export and import."""
    from fmjax import convert, evaluate, predict, report, reproduce, train

    run, public = str(folder / "run"), str(folder / "public")
    steps = {
        "train": (
            train,
            [
                *("--config", "configs/bert/sentiment.py:tiny", "--workdir", run),
                *("--config.steps=4", "--config.log.every=1"),
                *("--config.checkpoint.every=2",),
            ],
        ),
        "evaluate": (evaluate, ["--workdir", run, "--split", "validation"]),
        "predict": (predict, ["--workdir", run, "A fine film."]),
        "report": (report, ["--workdir", run]),
        "reproduce": (reproduce, [run, "--steps", "2"]),
        "export": (convert, ["--workdir", run, "--to", public]),
        "import": (convert, ["--from", public, "--workdir", str(folder / "again")]),
    }
    for name, (verb, words) in steps.items():
        watch.phase = name
        sys.argv = [f"fmjax {name}", *words]
        code = verb.main(words)
        if code:
            raise AssertionError(f"{name}: exit status {code}")


EVIL = "canary_module"
NAMES = (
    *(
        f"{EVIL}",
        f"{EVIL}.Model",
        f"{EVIL}--{EVIL}.Model",
        "../../x",
        "os",
        "os.system",
    ),
    *("fmjax.models.gpt", "bert.evil", "__import__('os').system('touch canary')", "\0"),
)
KEYS = ("model_type", "architectures", "hidden_act", "auto_map", "tokenizer_class")
ODD = (*NAMES, list(NAMES), {"AutoModel": f"{EVIL}.Model"}, 7, True, 1e300, [], {})


def configs(folder, watch):
    """Reads a public folder with each hostile value; [[by, key, value, outcome]]."""
    from fmjax import interop

    honest = json.loads((folder / "public/config.json").read_text())
    kept = (folder / "public/tokenizer_config.json").read_text()
    watch.phase = "warm"
    interop.read(folder / "public")
    interop.tokenizer(folder / "public")
    here = folder / "public"
    (here / f"{EVIL}.py").write_text("open('canary', 'w').close()\n")
    (here / "x.py").write_text("open('canary', 'w').close()\n")
    sys.path.insert(0, str(here))
    os.chdir(here)
    outcomes = []
    more = [
        ("num_hidden_layers", 10**9), ("hidden_size", 10**12), ("vocab_size", -1),
        ("num_attention_heads", 0), ("layer_norm_eps", "1e-5"),
        ("custom_pipelines", {"a": {"impl": f"{EVIL}.f"}}),
        ("quantization_config", {"quant_method": EVIL}),
    ]  # fmt: skip
    for key, value in [*((k, v) for k in KEYS for v in ODD), *more]:
        watch.phase = "config"
        (here / "config.json").write_text(json.dumps(honest | {key: value}))
        tokens = json.loads(kept) | {
            key: value,
            "auto_map": {"AutoTokenizer": [EVIL, None]},
        }
        (here / "tokenizer_config.json").write_text(json.dumps(tokens))
        for what in (interop.read, interop.tokenizer):
            try:
                found = what(here)
                outcome = f"read: {getattr(found, 'report', '')}"
            except (ValueError, LookupError) as error:
                outcome = f"{type(error).__name__}: {error}"
            outcomes.append([what.__name__, key, repr(value), outcome])
    watch.phase = "end"
    (here / "config.json").write_text(json.dumps(honest))
    return outcomes


def main():
    watch = Watch()
    if sys.argv[1] == "dial":
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
            time.sleep(0.2)
        os.system("true")
        print(json.dumps({"seen": watch.seen, "sockets": sorted(watch.sockets)}))
        return
    folder = pathlib.Path(sys.argv[2])
    life(folder, watch)
    outcomes = configs(folder, watch)
    seen = {"seen": watch.seen, "sockets": sorted(watch.sockets), "outcomes": outcomes}
    seen["canary"] = os.path.exists("canary")
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
