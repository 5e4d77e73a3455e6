"""MiniLM fine-tuned on BoolQ's questions and passages, beside TF-IDF and always "yes".

    python -m experiments.boolq.run [--seeds 1]

Interrupted and run again, it goes on where it was. Leaves runs/boolq (--workdir):
report.html, report.json, results.jsonl, a curve and the runs' folders.
"""

from __future__ import annotations

from experiments import finetuned
from fmjax import cli

# Accuracies on the published dev set, from memory of Clark et al. 2019.
CLAIMED = {"recurrent, no pre-training": 0.696, "BERT-large": 0.769}
TASKS = {"boolq": finetuned.Task("BoolQ", "configs/bert/boolq.py", CLAIMED)}


def main() -> int:
    return finetuned.main(
        __doc__ or "", "MiniLM beside TF-IDF: BoolQ", "runs/boolq", TASKS
    )


if __name__ == "__main__":
    cli.run(main)
