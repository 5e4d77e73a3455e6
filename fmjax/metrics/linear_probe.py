"""A linear classifier on frozen features: how much of a task they already hold."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fmjax.metrics.knn import check

SOLVERS = ("ridge", "logistic")


def compute(
    *,
    features: ArrayLike,
    labels: ArrayLike,
    train_features: ArrayLike,
    train_labels: ArrayLike,
    solver: str = "ridge",
    penalty: float = 1.0,
    standardise: bool = True,
) -> dict[str, Any]:
    """Accuracy of a linear map learned on training features.

    features [N, F] and labels [N] of what is tested; train_features [M, F] and
    train_labels [M]. solver: 'ridge', least squares to one-hot labels in closed form,
    with penalty * ||W||^2; 'logistic', cross-entropy summed over examples, with
    penalty / 2 * ||W||^2 (scikit-learn's C is 1 / penalty), by L-BFGS. Neither
    penalises the intercept. standardise: features have mean 0 and deviation 1 over the
    training set.

    Returns count, train_count, solver, accuracy and train_accuracy.
    Raises ValueError where shapes do not fit, or for another solver or penalty.
    """
    train, test = (np.asarray(x, np.float64) for x in (train_features, features))
    learned, truth = np.asarray(train_labels), np.asarray(labels)
    check(test, truth, train, learned)
    if solver not in SOLVERS or not penalty > 0:
        raise ValueError(f"solver={solver!r}, penalty={penalty}: {SOLVERS}, above 0")
    if standardise:
        mean, deviation = train.mean(0), train.std(0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        train, test = (train - mean) / deviation, (test - mean) / deviation
    fit = ridge if solver == "ridge" else logistic
    weights, bias = fit(train, learned, penalty)
    right = lambda x, y: float(((x @ weights + bias).argmax(1) == y).mean())  # noqa: E731
    return {
        "count": len(test),
        "train_count": len(train),
        "solver": solver,
        "accuracy": right(test, truth),
        "train_accuracy": right(train, learned),
    }


def ridge(
    x: np.ndarray, labels: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """(W [F, C], b [C]) of least ||x W + b - onehot||^2 + penalty ||W||^2."""
    target = np.eye(int(labels.max()) + 1)[labels]
    middle, centre = x.mean(0), target.mean(0)
    x, target = x - middle, target - centre
    if x.shape[0] >= x.shape[1]:
        gram = x.T @ x + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ target)
    else:  # the same by the smaller of the two systems
        gram = x @ x.T + penalty * np.eye(x.shape[0])
        weights = x.T @ np.linalg.solve(gram, target)
    return weights, centre - middle @ weights


def logistic(
    x: np.ndarray, labels: np.ndarray, penalty: float, *, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """(W [F, C], b [C]) of least summed cross-entropy + penalty / 2 ||W||^2.

    By scipy's L-BFGS to a gradient of `tolerance` an example.
    """
    from scipy.optimize import minimize

    size, classes = x.shape[1], int(labels.max()) + 1
    target = np.eye(classes)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-classes].reshape(size, classes), flat[-classes:]
        logits = x @ weights + bias
        logits -= logits.max(1, keepdims=True)
        log_z = np.log(np.exp(logits).sum(1, keepdims=True))
        error = np.exp(logits - log_z) - target
        value = (log_z[:, 0] - (logits * target).sum(1)).sum()
        value += penalty / 2 * (weights**2).sum()
        gradient = [(x.T @ error + penalty * weights).ravel(), error.sum(0)]
        return float(value) / len(x), np.concatenate(gradient) / len(x)

    start = np.zeros(size * classes + classes)
    options = {"maxiter": 10_000, "gtol": tolerance, "maxfun": 100_000}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:-classes].reshape(size, classes), found[-classes:]
