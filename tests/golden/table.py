"""Measures every case against transformers: `python -m tests.golden.table [--again]`.

Needs the `parity` extra. Appends a line a case to parity.jsonl, goes on after what is
there of the same versions, and prints the README's table: each family's largest
differences.
"""

import json
import pathlib
import sys
import tempfile

if __name__ == "__main__":
    from tests import conftest  # noqa: F401  (compiled as the tests are, once)

from . import bert_cases, lm_cases

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
FAMILIES = (*list(HEADS.values())[:-1], "T5 1.0", "T5 1.1", "Transformer (Marian)")
CASES = bert_cases.CASES | lm_cases.CASES
PARTS = ("act", "output", "loss", "grad")


def family(case):
    """The row of the table that a case is of."""
    if case.kind == "T5ForConditionalGeneration":
        gated = "gated" in case.config().get("feed_forward_proj", "")
        return "T5 1.1" if gated else "T5 1.0"
    return HEADS[case.kind]


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

    from . import compare

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    kept = {} if "--again" in sys.argv else measured()
    kept = {n: x for n, x in kept.items() if versions.items() <= x.items()}
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in kept.values()))
    for name, case in CASES.items():
        if name in kept:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = compare.run(case, pathlib.Path(folder))
        line = {"case": name, "family": family(case), "reference": case.kind}
        line |= {part: found.worst[part] for part in PARTS}
        line["bit_equal"] = found.bit_equal and not any(found.info.values())
        with RESULTS.open("a") as file:
            file.write(json.dumps(line | versions) + "\n")
        print(line, flush=True)
    for row in rows():
        print(shown(row))


def shown(row):
    """A row of the README's table; act and output together are its outputs."""
    outputs = max(row["act"], row["output"])
    numbers = " | ".join(f"{x:.1e}" for x in (outputs, row["loss"], row["grad"]))
    numbers = numbers.replace("e-0", "e-")
    trip = "bit-equal" if row["bit_equal"] else "differs"
    kind = f"transformers `{row['reference']}`"
    return f"| {row['family']} | {kind} | {row['cases']} | {numbers} | {trip} |"


if __name__ == "__main__":
    main()
