"""One case against the live reference: load, compute, compare, give back."""

from typing import Any, NamedTuple

import torch
import transformers

from fmjax import interop

from . import bert_cases, bert_reference, lm_cases, lm_reference


class Found(NamedTuple):
    """worst: as `bert_cases.differences`. again: the reference class's model of what
    fmjax wrote; info: what it says of loading; bit_equal: are all its tensors those of
    `reference`."""

    worst: dict[str, float]
    reference: Any
    again: Any
    info: dict[str, Any]
    bit_equal: bool
    given: dict[str, Any]
    expected: dict[str, Any]


def run(case: bert_cases.Case | lm_cases.Case, folder: Any) -> Found:
    """Everything in the folders theirs/ and ours/ of `folder`, which is there."""
    bert = isinstance(case, bert_cases.Case)
    reference = (bert_reference if bert else lm_reference).model(case)
    reference.save_pretrained(folder / "theirs")
    loaded = interop.read(folder / "theirs")
    report = loaded.report
    assert report.unknown == report.settings == report.missing == ()
    given = (bert_cases if bert else lm_cases).inputs(case)
    expected = compute(case, reference, given)
    if bert:
        got = bert_cases.ours(loaded.net, loaded.variables, given)
    else:
        got = lm_cases.ours(case, loaded.net, loaded.variables, given)
    worst = bert_cases.differences(expected, got)

    interop.save(folder / "ours", loaded.net, loaded.variables)
    options = {"pad_token_id": None} if bert else {}  # see bert_cases.Case.config
    again, info = getattr(transformers, case.kind).from_pretrained(
        folder / "ours",
        attn_implementation="eager",
        output_loading_info=True,
        **options,
    )
    into_own_memory(again)
    theirs, ours = reference.state_dict(), again.state_dict()
    bit_equal = set(theirs) == set(ours) and all(
        torch.equal(tensor, ours[key]) for key, tensor in theirs.items()
    )
    return Found(worst, reference, again.eval(), info, bit_equal, given, expected)


def into_own_memory(model: torch.nn.Module) -> None:
    """Copy tensors that lie in a mapped file: 12 bytes into a line of 16, a kernel with
    one output is summed in another order on some processors."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def compute(case: bert_cases.Case | lm_cases.Case, net: Any, given: dict) -> dict:
    """What a reference computes for a case's inputs."""
    if isinstance(case, bert_cases.Case):
        return bert_reference.compute(net, given)
    return lm_reference.compute(case, net, given)
