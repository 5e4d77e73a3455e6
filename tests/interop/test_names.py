"""Whatever a writer calls tensors: all of them are read, or told of by name."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fmjax import interop
from tests.golden import bert_cases

GOLDEN = pathlib.Path(bert_cases.__file__).parent
NAMES = ("bert/pretrain", "bert/classify", "lm/gpt2", "lm/t5", "lm/t5-1.1", "lm/marian")

# Prefixes that a writer may leave out, and further names of one tensor.
BARE = {"bert": "bert.", "gpt2": "transformer.", "marian": "model.", "t5": ""}
WORDS = "bert.embeddings.word_embeddings.weight"
ALIASES = {
    "bert/pretrain": {
        WORDS: ["cls.predictions.decoder.weight"],
        "cls.predictions.bias": ["cls.predictions.decoder.bias"],
    },
    "lm/gpt2": {"transformer.wte.weight": ["lm_head.weight"]},
    "lm/t5": {
        "shared.weight": [
            *("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
            "lm_head.weight",
        ]
    },
    "lm/t5-1.1": {
        "shared.weight": ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    },
    "lm/marian": {
        "model.shared.weight": [
            *("model.encoder.embed_tokens.weight", "lm_head.weight"),
            "model.decoder.embed_tokens.weight",
        ]
    },
}

few = settings(
    max_examples=6,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def written(folder, name, tensors):
    folder = folder / name.replace("/", "-")
    folder.mkdir(exist_ok=True)
    shutil.copy(GOLDEN / name / "config.json", folder)
    save_file(tensors, folder / "model.safetensors")
    return folder


def equal(a, b):
    same = jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", NAMES)
@few
@given(data=st.data())
def test_every_alias_and_prefix_is_read(name, data, tmp_path):
    tensors = load_file(GOLDEN / name / "model.safetensors")
    kept = dict(tensors)
    for own, others in ALIASES.get(name, {}).items():
        # At least one of a tensor's names is there; any others are copies.
        all_names = [own, *others]
        chosen = data.draw(st.sets(st.sampled_from(all_names), min_size=1))
        value = kept.pop(own)
        kept |= {alias: value.copy() for alias in chosen}
    kind = json.loads((GOLDEN / name / "config.json").read_text())["model_type"]
    if data.draw(st.booleans()):
        kept = {n.removeprefix(BARE[kind]): v for n, v in kept.items()}
    wrappers = data.draw(
        st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=2)
    )
    kept = {"".join(wrappers) + n: v for n, v in kept.items()}
    loaded = interop.read(written(tmp_path, name, kept))
    assert equal(loaded.variables, interop.load(GOLDEN / name)[1])
    assert set(loaded.report.matched) == set(kept)


@pytest.mark.parametrize("name", NAMES)
@few
@given(data=st.data())
def test_every_tensor_and_parameter_is_accounted_for(name, data, tmp_path):
    tensors = load_file(GOLDEN / name / "model.safetensors")
    strange = st.from_regex(r"[a-z]{1,6}(\.[a-z_]{1,6}){1,2}\.weight", fullmatch=True)
    more = data.draw(st.sets(strange, max_size=3)) - set(tensors)
    extra = {n: np.ones((2, 2), np.float32) for n in more}
    gone = data.draw(st.sampled_from(sorted(tensors)))
    left = {n: v for n, v in tensors.items() if n != gone} | extra
    folder = written(tmp_path, name, left)
    if gone == "final_logits_bias":  # zero where a file lacks it
        report = interop.read(folder).report
    else:
        with pytest.raises(ValueError, match="no tensors for"):
            interop.read(folder)
        report = interop.read(folder, key=jax.random.key(0)).report
        whole = interop.read(GOLDEN / name).report.matched
        first = whole[gone]
        assert first in report.missing
    told = [*report.matched, *report.unused, *report.unknown, *report.ignored]
    assert sorted(told) == sorted(left)
    assert set(extra) <= {*report.unused, *report.unknown}
    if report.unknown and not report.missing:
        with pytest.raises(ValueError, match="does not know"):
            interop.load(folder)


@pytest.mark.parametrize("name", NAMES)
@few
@given(data=st.data())
def test_a_wrong_shape_is_named_with_both(name, data, tmp_path):
    tensors = load_file(GOLDEN / name / "model.safetensors")
    spoilt = data.draw(st.sampled_from(sorted(tensors)))
    axis = data.draw(st.integers(0, tensors[spoilt].ndim - 1))
    right = tensors[spoilt].shape
    tensors[spoilt] = np.concatenate([tensors[spoilt]] * 2, axis)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (all of it is looked at)
        interop.read(written(tmp_path, name, tensors))
    for part in (spoilt, str(tensors[spoilt].shape), str(right)):
        assert part in str(error.value)
