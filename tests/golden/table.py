"""Measures every case against its reference: `python -m tests.golden.table [--again]`.

Needs the `parity` extra and timm. Appends a line a case to parity.jsonl, goes on after
what is there of the same versions, and prints the README's table: each family's largest
differences. Convnets' gradients are compared in float64, all else in float32.
"""

import json
import pathlib
import sys
import tempfile

if __name__ == "__main__":
    from tests import conftest  # noqa: F401  (compiled as the tests are, once)

from . import bert_cases, convnet_cases, lm_cases, vision_cases

RESULTS = pathlib.Path(__file__).with_name("parity.jsonl")
HEADS = {
    "BertModel": "BERT, encoder",
    "BertForPreTraining": "BERT, pre-training heads",
    "BertForMaskedLM": "BERT, masked-LM head",
    "BertForSequenceClassification": "BERT, classifier",
    "BertForTokenClassification": "BERT, tags",
    "BertForQuestionAnswering": "BERT, answer spans",
    "BertForMultipleChoice": "BERT, choices",
    "GPT2LMHeadModel": "GPT-2",
    "MarianMTModel": "Transformer (Marian)",
}
VISION = {
    "ViTForImageClassification": "ViT",
    "ViTModel": "ViT, encoder",
    "timm": "ViT (timm's)",
    "ViTMAEForPreTraining": "MAE",
    "CLIPModel": "CLIP",
}
CONVNETS = {
    "alexnet": ("AlexNet", "torch `AlexNet`, written out"),
    "inception": ("Inception-v3", "timm `InceptionV3`"),
    "resnet": ("ResNet", "torch, written out, and timm `ResNet`"),
    "mobilenet": ("MobileNetV2", "torch, written out, and timm `EfficientNet`"),
}
FAMILIES = (*list(HEADS.values())[:-1], "T5 1.0", "T5 1.1", "Transformer (Marian)")
FAMILIES += (*VISION.values(), *(name for name, _ in CONVNETS.values()))
PICTURES = convnet_cases.CASES | convnet_cases.FULL
CASES = bert_cases.CASES | lm_cases.CASES | vision_cases.CASES | PICTURES
PARTS = ("act", "output", "loss", "grad")


def family(case):
    """The row of the table that a case is of."""
    if isinstance(case, convnet_cases.Case):
        return CONVNETS[case.family][0]
    if case.kind == "T5ForConditionalGeneration":
        gated = "gated" in case.config().get("feed_forward_proj", "")
        return "T5 1.1" if gated else "T5 1.0"
    return (HEADS | VISION)[case.kind]


def reference(case):
    """What a case is held against, as the table names it."""
    if isinstance(case, convnet_cases.Case):
        return CONVNETS[case.family][1]
    if case.kind == "timm":
        return "timm `VisionTransformer`"
    return f"transformers `{case.kind}`"


def compared(case, folder):
    """(largest differences by part, is what fmjax writes the same bits?)"""
    from . import compare, compare_vision

    if isinstance(case, convnet_cases.Case):
        found = compare_vision.convnet(case, folder)
        worst = dict.fromkeys(PARTS, 0.0)
        for name, value in found.worst.items():
            part = name.partition("/")[0]
            # Statistics are what an activation's batch has left behind.
            part = "act" if part == "stat" else part
            if part in worst:
                worst[part] = max(worst[part], value)
        return worst, found.bit_equal
    vision = isinstance(case, vision_cases.Case)
    run = compare_vision.transformer if vision else compare.run
    found = run(case, folder)
    return found.worst, found.bit_equal and not any(found.info.values())


def measured():
    """What parity.jsonl holds: {case: its numbers}."""
    if not RESULTS.exists():
        return {}
    lines = map(json.loads, RESULTS.read_text("utf-8").splitlines())
    return {line["case"]: line for line in lines}


def rows():
    """The table: a dict a family, with its largest differences over its cases."""
    found = {}
    for line in measured().values():
        row = found.setdefault(line["family"], line | {"cases": 0})
        row["cases"] += 1
        row["bit_equal"] &= line["bit_equal"]
        row |= {part: max(row[part], line[part]) for part in PARTS}
    return [found[name] for name in FAMILIES if name in found]


def main():
    import torch
    import transformers

    from . import timm_alone

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    pictured = {"timm": timm_alone.import_timm().__version__}
    kept = {} if "--again" in sys.argv else measured()
    kept = {n: x for n, x in kept.items() if versions.items() <= x.items()}
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in kept.values()))
    for name, case in CASES.items():
        if name in kept:
            continue
        with tempfile.TemporaryDirectory() as folder:
            worst, bit_equal = compared(case, pathlib.Path(folder))
        line = {"case": name, "family": family(case), "reference": case.kind}
        line |= {part: worst[part] for part in PARTS} | {"bit_equal": bit_equal}
        own = not isinstance(case, bert_cases.Case | lm_cases.Case)
        with RESULTS.open("a") as file:
            file.write(json.dumps(line | versions | (pictured if own else {})) + "\n")
        print(line, flush=True)
    for row in rows():
        print(shown(row))


def shown(row):
    """A row of the README's table; act and output together are its outputs."""
    outputs = max(row["act"], row["output"])
    numbers = " | ".join(f"{x:.1e}" for x in (outputs, row["loss"], row["grad"]))
    numbers = numbers.replace("e-0", "e-")
    trip = "bit-equal" if row["bit_equal"] else "differs"
    kind = reference(CASES[row["case"]])
    return f"| {row['family']} | {kind} | {row['cases']} | {numbers} | {trip} |"


if __name__ == "__main__":
    main()
