"""The accuracy without argmax is the accuracy by argmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fmjax.objectives import top1

top1 = jax.jit(top1)
# Few values, so that rows have ties, and all of what floats have but nan.
FLOATS = st.sampled_from([-np.inf, -2.5, -0.0, 0.0, 1.0, 3e38, np.inf])


@given(
    arrays.arrays(np.float32, (3, 2, 5), elements=FLOATS),
    arrays.arrays(np.int32, (3, 2), elements=st.integers(-2, 6)),
)
def test_it_is_argmax_with_its_ties_and_labels_outside(logits, labels):
    expected = logits.argmax(-1) == labels
    np.testing.assert_array_equal(top1(logits, labels), expected)
    np.testing.assert_array_equal(jnp.argmax(logits, -1) == labels, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_of_many_classes(dtype):
    logits = jax.random.normal(jax.random.key(0), (64, 3000), dtype)
    labels = logits.argmax(-1).at[::2].set(7)
    expected = logits.argmax(-1) == labels
    assert 0 < expected.sum() < 64
    np.testing.assert_array_equal(top1(logits, labels), expected)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_row_with_a_nan_is_never_right(where):
    logits = np.array([[1.0, 5.0, 2.0]] * 2, np.float32)
    logits[1, where] = np.nan
    for label in range(3):
        found = top1(logits, np.full(2, label))
        assert found.tolist() == [label == 1, False]
