"""Classification with a second classifier inside the net, as Inception has one."""

from __future__ import annotations

from fmjax.objectives import classify

METRICS = classify.METRICS
predict = classify.predict


def objective(
    apply, params, extras, batch, key, *, share: float = 0.3, label_smoothing=0.0
):
    """Sums of `classify`, and in training `share` of the second classifier's loss more.

    The model is asked for (logits, auxiliary logits) by both=True. Szegedy et al. 2015
    (arXiv:1409.4842), section 5: "with a discount weight, 0.3". Evaluation and the
    metrics are of the first classifier alone.
    """
    if key is None:
        return classify.objective(apply, params, extras, batch, None)
    (first, second), extras = apply(params, extras, batch["inputs"], key=key, both=True)
    said = [
        classify.objective(
            lambda *_, logits=logits, **__: (logits, extras),
            *(params, extras, batch, key),
            label_smoothing=label_smoothing,
        )
        for logits in (first, second)
    ]
    (losses, metrics, _), (other, _, _) = said
    (total, weight), (more, _) = losses["classify"], other["classify"]
    return {"classify": (total + share * more, weight)}, metrics, extras
