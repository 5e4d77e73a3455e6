"""Single-label classification: how often right, on which classes, how calibrated."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fmjax.metrics import calibration


def compute(
    *, labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str] | int
) -> dict[str, Any]:
    """Every number a report needs of one test set, as plain Python values.

    labels: integers [N]; probabilities: floats [N, C]; classes: the C names in label
    order, or C. The prediction is the most probable class, the first of equals.

    Returns count; accuracy; for more than five classes top5_accuracy, the share whose
    label is among the five most probable; macro_f1 (mean over all C classes); for two
    classes f1 and positive, the F1 and name of class 1; per_class, a list of dicts with
    class, support, precision, recall (the accuracy on the class) and f1, in which 0 / 0
    counts as 0; confusion [C][C], rows the truth, columns the prediction; nll in nats,
    probabilities kept above 2.2e-16 so that one certain mistake does not make it
    infinite; ece, expected calibration error over 15 equal-width bins of the top
    probability (Guo et al. 2017, eq. 5); brier, the squared error summed over classes
    (Brier 1950), 0 to 2.

    Raises ValueError for an empty set, lengths that differ, labels out of range, rows
    that are no distribution; ModuleNotFoundError without scikit-learn.
    """
    names = (
        [str(index) for index in range(classes)]
        if isinstance(classes, int)
        else [str(name) for name in classes]
    )
    truth, scores = calibration.checked(labels, probabilities)
    if len(names) != scores.shape[1]:
        raise ValueError(
            f"{len(names)} classes ({', '.join(names[:6])}) but probabilities have "
            f"{scores.shape[1]} columns"
        )
    sklearn = _sklearn()
    predicted = scores.argmax(axis=1)
    every = np.arange(len(names))
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        truth, predicted, labels=every, zero_division=0
    )
    result: dict[str, Any] = {
        "count": len(truth),
        "accuracy": float((truth == predicted).mean()),
        "macro_f1": float(f1.mean()),
    }
    if len(names) > 5:
        among = np.argsort(-scores, axis=1, kind="stable")[:, :5] == truth[:, None]
        result["top5_accuracy"] = float(among.any(axis=1).mean())
    if len(names) == 2:
        result |= {"f1": float(f1[1]), "positive": names[1]}
    return result | {
        "nll": float(sklearn.log_loss(truth, scores, labels=every)),
        "ece": calibration.reliability(labels=truth, probabilities=scores)["ece"],
        "brier": calibration.brier(labels=truth, probabilities=scores),
        "per_class": [
            {
                "class": name,
                "support": int(support[index]),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
            }
            for index, name in enumerate(names)
        ],
        "confusion": sklearn.confusion_matrix(truth, predicted, labels=every).tolist(),
    }


def _sklearn() -> Any:
    # Imported when used: training alone does not need it.
    try:
        return importlib.import_module("sklearn.metrics")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "classification metrics need scikit-learn: "
            "pip install 'fmjax[experiments]' (or scikit-learn)"
        ) from error
