"""MiniLM fine-tuned on Reuters R8, R52 and 20 Newsgroups, beside TF-IDF.

    python -m experiments.topics.run [--task r8] [--seeds 1]

Interrupted and run again, it goes on where it was. Leaves runs/topics (--workdir):
report.html, report.json, results.jsonl, a curve and a folder each data set.
"""

from __future__ import annotations

from experiments import finetuned
from fmjax import cli

CONFIG = "configs/bert/topics.py"
# Coefficients for each of so many word pairs and topics would not fit into memory.
OPTIONS = {"strengths": (4.0, 16.0, 64.0), "texts": 2}
# Test accuracies on the same split, from memory: TextGCN is Yao et al. 2019, BERT as
# reported since.
TASKS = {
    "r8": finetuned.Task(
        "Reuters R8", f"{CONFIG}:r8", {"TextGCN": 0.971, "BERT": 0.978}, OPTIONS
    ),
    "r52": finetuned.Task(
        "Reuters R52", f"{CONFIG}:r52", {"TextGCN": 0.936, "BERT": 0.964}, OPTIONS
    ),
    "20newsgroups": finetuned.Task(
        "20 Newsgroups",
        f"{CONFIG}:20newsgroups",
        {"TextGCN": 0.863, "BERT": 0.853},
        OPTIONS,
    ),
}


def main() -> int:
    return finetuned.main(
        __doc__ or "", "MiniLM beside TF-IDF: topics", "runs/topics", TASKS
    )


if __name__ == "__main__":
    cli.run(main)
