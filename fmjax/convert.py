"""A public checkpoint becomes a run's folder, or a run becomes a public checkpoint.

python -m fmjax.convert --from FOLDER --workdir runs/x        (or hf:org/name@revision)
python -m fmjax.convert --workdir runs/x --to FOLDER [--dtype bfloat16] [--adapter]

FOLDER is in Hugging Face's format: config.json, safetensors, a tokenizer. `predict`,
`evaluate`, `generate` and init_from take the first command's result as any trained run.
What it evaluates is that of --config FILE[:ARG], or rows of your own:
--config.data.path=mine-{split}.jsonl. transformers loads the second's as it is: a run
with LoRA, DoRA, AdaLoRA or (IA)^3 has these merged into its weights. --adapter writes
what LoRA or DoRA trained alone, in the format of `peft`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fmjax import checkpoint, cli, config, files, flags, interop, optim, transforms
from fmjax import workdir as workdirs
from fmjax.data import tokenizer as tokenizers
from fmjax.data import weights
from fmjax.interop import peft, safetensors, sentence_folder, tokenizer_folder
from fmjax.keeping import provenance
from fmjax.transforms import lora

_TEXTS = dict(name="text", path="texts")  # a folder
_ROWS = dict(name="records", path="{split}.jsonl")


def load(
    source: str | pathlib.Path,
    workdir: str | pathlib.Path,
    *,
    head: str | None = "auto",
    classes: int | None = None,
    dtype: str = "float32",
    allow_unknown: bool = False,
    base: Mapping[str, Any] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> interop.Report:
    """Makes the run's folder `workdir` of a public checkpoint; returns the report.

    source: a folder, or a name as in `weights.directory`. head, classes: of BERT, in
    place of what its config says. dtype: what the run computes in. allow_unknown: leave
    out tensors that the family does not know, which are refused otherwise.
    base: a config of `fmjax.train`, whose objective, data and inputs the run has; by
    default they are those of the head. overrides: dotted settings, over either.
    Parameters are never made up here.
    Raises ConfigError where there is a run in `workdir`, the checkpoint lacks
    parameters or does not fit its tokenizer, or a setting is wrong; and as
    `interop.load`, naming the thing.
    """
    workdir = pathlib.Path(workdir)
    if workdir.exists() and any(workdir.iterdir()):
        raise config.ConfigError(f"{workdir} is not empty; use another --workdir")
    with config.blaming("convert"):
        folder = weights.directory(source)
    if not folder.is_dir():
        raise FileNotFoundError(weights.missing(source))
    with config.blaming("convert"):
        tokenizer = interop.tokenizer(folder)
        public = interop.config_of(folder)
        if public.get("model_type") == "bert" and (
            head is None or (head == "auto" and interop.auto_head(public) is None)
        ):
            head = "embed"  # states alone have no use by themselves; their mean has
        loaded = interop.read(folder, head=head, classes=classes)
    if loaded.report.unknown and not allow_unknown:
        raise config.ConfigError(
            f"{source} has tensors that {type(loaded.net).__module__} does not know: "
            f"{', '.join(loaded.report.unknown)}; --allow-unknown leaves them out"
        )
    net = loaded.net.clone(dtype=dtype)
    _check_roles(source, public, tokenizer, type(net).__module__)
    model = {"name": type(net).__module__.rpartition(".")[2]} | fields(net)
    names = _class_names(public, model.get("classes"))
    length = min(net.max_length, 512)
    if getattr(net, "head", None) == "embed":
        with config.blaming("convert"):
            length = interop.sentence_length(folder)
    settings = _defaults(net, names, length) if base is None else dict(base)
    settings["model"], settings["init_from"] = model, None
    settings["tokenizer"] = {"path": str(source)}
    for key, text in (overrides or {}).items():
        config.override(settings, key, text)
    parts = config.assemble(settings, names)
    if parts.net != net:
        raise config.ConfigError("--config.model.*: the checkpoint says what it is")
    files.replace(workdir / "tokenizer.json", tokenizer.to_str(pretty=True))
    record = {
        "config": json.loads(json.dumps(settings)),
        "model": parts.model,
        "classes": names,
        "shapes": {},
        "data": {"origin": str(source), "converted": str(loaded.report)},
        "runs": [provenance.record(workdir)],
    }
    files.write_json(workdir / "config.json", record)
    store = checkpoint.Checkpoints(workdir)
    store.save_best(0, jax.tree.map(np.asarray, loaded.variables["params"]), {})
    store.close()
    result = {"status": "done", "step": 0, "steps": 0, "converted": str(source)}
    if interop.is_bare(public):  # what is written again, unless it is trained
        result["architectures"] = public["architectures"]
    files.write_json(workdir / "result.json", result)
    return loaded.report


def save(
    workdir: str | pathlib.Path,
    folder: str | pathlib.Path,
    *,
    dtype: str = "float32",
    shard_bytes: int = safetensors.SHARD_BYTES,
    adapter: bool = False,
) -> list[str]:
    """Writes a run's best weights, tokenizer and labels for transformers.

    The files of head 'embed' are sentence-transformers', too, where texts are cut as
    in the run. dtype, shard_bytes: as in `interop.save`. adapter: what LoRA or DoRA
    trained alone, for `peft`, instead. Returns the names of the files. Raises
    ConfigError where there is no run or no weights, or the run has no public format.
    """
    run, folder = workdirs.open_run(workdir), pathlib.Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise config.ConfigError(f"{folder} is not empty; use another --to")
    if (run.settings.get("checkpoint") or {}).get("trained_only"):
        example = run.batches(run.parts.data("train").rows).example(0)
        params, extras = run.weights(example)  # what was frozen comes from elsewhere
    else:
        found = checkpoint.weights(workdir)
        params, extras = found["params"], found["extras"]
    if adapter:
        _save_adapter(run, params, folder)
        return sorted(file.name for file in folder.iterdir())
    with config.blaming("convert"):
        net, params = transforms.merged(run.parts.net, params)
    settings: dict[str, Any] = {}
    if run.classes and getattr(net, "classes", None) == len(run.classes):
        settings["id2label"] = {str(i): name for i, name in enumerate(run.classes)}
        settings["label2id"] = {name: i for i, name in enumerate(run.classes)}
    with contextlib.suppress(FileNotFoundError):
        result = json.loads((run.folder / "result.json").read_text("utf-8"))
        settings |= {k: v for k, v in result.items() if k == "architectures"}
    tokenizer = run.parts.tokenizer
    with config.blaming("convert"):
        kind = interop.kind_of(net)
        ids = tokenizer_folder.ids(tokenizer, kind) if tokenizer else {}
        interop.save(
            folder,
            net,
            {"params": params, **extras},
            dtype=dtype,
            shard_bytes=shard_bytes,
            settings=settings | ids,
        )
    if tokenizer:
        length = net.max_length
        if getattr(net, "head", None) == "embed":
            length = _text_length(run, length)
            sentence_folder.write(folder, width=net.width, length=length)
        tokenizer_folder.write(folder, tokenizer, kind=kind, max_length=length)
        if hasattr(net, "decode"):
            files.write_json(folder / "generation_config.json", ids)
    return sorted(file.name for file in folder.iterdir())


def _text_length(run: workdirs.Run, limit: int) -> int:
    """At how many pieces a run's inputs cut a text, or `limit`."""
    asked = run.settings["inputs"]
    fields = inspect.signature(config.find("inputs", asked["name"]).make).parameters
    if "length" not in fields:
        return limit
    return min(limit, asked.get("length", fields["length"].default))


def _save_adapter(run: workdirs.Run, params: Any, folder: pathlib.Path) -> None:
    """The folder of `peft` with LoRA's parameters and the net's own that were trained.

    Raises ConfigError where LoRA is not the run's one transform.
    """
    net = run.parts.net
    if not isinstance(net, lora.Lora) or isinstance(net.net, transforms.Transformed):
        raise config.ConfigError(
            f"--adapter writes LoRA alone, and the run's transforms are "
            f"{', '.join(run.settings['transforms'] or {}) or 'none'}"
        )
    asked = run.settings["optim"]
    on = optim.trained(params, asked.get("freeze"), asked.get("train"))
    learns = transforms.flatten(params if on is None else on)
    own = [
        re.escape(path)
        for path in learns
        if not net.owns(path) and (on is None or learns[path])
    ]
    base = (run.settings["init_from"] or {}).get("path", "")
    with config.blaming("convert"):
        whole = f"^({'|'.join(own)})$" if own else None
        peft.save(folder, net, params, whole=whole, base=base)


def fields(net: Any) -> dict[str, Any]:
    """A net's fields that are not its defaults: a config's `model` but for its name."""
    return {
        field.name: getattr(net, field.name)
        for field in dataclasses.fields(net)
        if field.name not in ("parent", "name")
        and getattr(net, field.name) != field.default
    }


def _defaults(net: Any, classes: Sequence[str], length: int) -> dict[str, Any]:
    """The objective, data and inputs of a net's head: settings like a config's."""
    head = getattr(net, "head", None)
    rows = _ROWS | ({"classes": list(classes)} if classes else {})
    windows = dict(corpus=dict(_TEXTS), length=length)
    masked = dict(name="masked_pairs", predictions=max(1, round(0.15 * length)))
    objective, data, inputs = {
        "classify": ("classify", rows, dict(name="text", length=length)),
        "choose": ("classify", rows, dict(name="choices", choices=4, length=length)),
        "tag": ("token_classify", rows, dict(name="token_tags", length=length)),
        "span": (
            "span_qa",
            dict(name="question_windows", corpus=dict(_ROWS), length=length),
            dict(name="question_span"),
        ),
        "embed": (
            "cosine_similarity",
            rows,
            dict(name="sentence_pair_score", length=length),
        ),
        "pretrain": ("bert_pretrain", dict(name="sentence_pairs") | windows, masked),
        "mlm": ("bert_pretrain", dict(name="sentence_pairs") | windows, masked),
    }.get(head or "", ("next_token", rows, None))
    if inputs is None and type(net).__module__.endswith(".gpt"):
        data, inputs = dict(name="windows") | windows, dict(name="next_token")
    elif inputs is None:
        inputs = dict(name="seq2seq", length=length, target_length=length)
    return {
        "objective": {"name": objective},
        "data": data,
        "inputs": inputs,
        "batch_size": 8,
        "parallel": {"how": "jit", "params": "replicate"},
        "seed": 0,
    }


def _class_names(public: Mapping[str, Any], classes: int | None) -> list[str]:
    """id2label's names in order, or numbers where it does not fit."""
    labels = public.get("id2label")
    if not classes:
        return []
    if isinstance(labels, dict) and set(labels) == {str(i) for i in range(classes)}:
        named = [labels[str(i)] for i in range(classes)]
        if all(isinstance(n, str) for n in named) and len({*named}) == classes:
            return named
    return [f"LABEL_{i}" for i in range(classes)]


def _check_roles(
    source: Any, public: Mapping[str, Any], tokenizer: Any, module: str
) -> None:
    """Texts must begin and end with the tokens that the checkpoint knows."""
    if module.endswith(".bert"):
        return
    wanted = {"eos_token_id": "end", "decoder_start_token_id": "pad"}
    if module.endswith(".gpt"):
        wanted = {"eos_token_id": "document"}
    for key, role in wanted.items():
        number, ours = public.get(key), tokenizers.role(tokenizer, role)
        if number is not None and number != ours:
            raise config.ConfigError(
                f"{source}: config.json has {key} = {number!r:.40}, but the token for "
                f"{role} is {tokenizer.id_to_token(ours)!r}, {ours}: texts would begin "
                "or end otherwise than the checkpoint's; correct one of them"
            )


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="the run's folder")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER",
        help="make the run of this checkpoint: a folder, or hf:org/name@revision",
    )
    way.add_argument(
        "--to", metavar="FOLDER", help="write the run into this new folder"
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=interop.DTYPES,
        help="--from: what the run computes in; --to: how weights are kept (float32)",
    )
    into = parser.add_argument_group("with --from")
    into.add_argument(
        "--head",
        default="auto",
        help="of BERT: classify, tag, ..., or none (auto: as config.json says)",
    )
    into.add_argument("--classes", type=int, help="of that head (as config.json says)")
    into.add_argument(
        "--allow-unknown",
        action="store_true",
        help="leave out tensors that the model does not have, instead of refusing",
    )
    into.add_argument(
        "--config",
        metavar="FILE[:ARG]",
        help="take objective, data and inputs from this config (as fits the head)",
    )
    out = parser.add_argument_group("with --to")
    out.add_argument(
        "--shard-bytes",
        type=int,
        default=safetensors.SHARD_BYTES,
        help="bytes of a weights file at most (5000000000)",
    )
    out.add_argument(
        "--adapter", action="store_true", help="write LoRA or DoRA alone, for peft"
    )
    given = cli.parse(parser, argv)
    if jax.process_count() > 1:
        raise config.ConfigError("one process converts: start only one")
    if given.to:
        if given.config or given.overrides or given.classes or given.head != "auto":
            raise config.ConfigError("--to takes a run as it is: no --head, --config")
        options = dict(dtype=given.dtype, shard_bytes=given.shard_bytes)
        written = save(given.workdir, given.to, adapter=given.adapter, **options)
        print(json.dumps({"folder": given.to, "files": written}, indent=2))
        return 0
    base = config.load(given.config) if given.config else None
    found = load(
        given.source,
        given.workdir,
        head=None if given.head.lower() == "none" else given.head,
        classes=given.classes,
        dtype=given.dtype,
        allow_unknown=given.allow_unknown,
        base=base,
        overrides=given.overrides,
    )
    shown = dataclasses.asdict(found) | {"matched": len(found.matched)}
    print(json.dumps({"workdir": given.workdir} | shown, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    cli.run(main)
