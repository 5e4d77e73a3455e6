"""Costs read from HLO: of programs compiled here, and lines the TPU compiler wrote."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fmjax.costs import collectives, flops, hlo


def zeros(*shape, dtype=jnp.float32, sharding=None):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def compiled(function, *args):
    return hlo.costs(hlo.parse(jax.jit(function).lower(*args).compile().as_text()))


def layers(x, w):
    def body(x, w):
        return jnp.tanh(jax.lax.dot(x, w, precision="highest")), None

    return jax.lax.scan(body, x, w)[0]


def test_a_loop_costs_as_often_as_it_runs():
    args = zeros(16, 64), zeros(6, 64, 64)
    found = compiled(layers, *args)
    assert found.flops == flops.count(layers, *args) == 6 * 2 * 16 * 64 * 64
    assert [trips for _, trips in found.loops] == [6]
    # Six kernels are read, one a turn, and not all of them six times.
    kernels = 6 * 64 * 64 * 4
    assert kernels <= found.bytes < 6 * kernels


def test_the_gradient_of_a_scan():
    def gradient(x, w):
        return jax.grad(lambda w: (layers(x, w) ** 2).sum())(w)

    args = zeros(16, 64), zeros(6, 64, 64)
    found = compiled(gradient, *args)
    # The first layer's product with the input's gradient is for nothing: the compiler
    # need not see it, as the loop's turns are alike.
    assert found.flops == 3 * 6 * 2 * 16 * 64 * 64
    assert [trips for _, trips in found.loops] == [6, 6]


@pytest.mark.parametrize("argument", [None, 0, 1])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients(argument, stride):
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    function = convolve
    if argument is not None:
        function = jax.grad(lambda x, w: (convolve(x, w) ** 2).sum() / 2, argument)
    args = zeros(3, 8, 8, 4), zeros(3, 3, 4, 5)
    assert compiled(function, *args).flops == flops.count(function, *args)


def test_collectives_by_kind_bytes_and_axis():
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    place = lambda *spec: NamedSharding(mesh, P(*spec))  # noqa: E731
    x = zeros(16, 64, sharding=place("data"))
    w = zeros(64, 64, sharding=place("model", None))

    def product(x, w):
        hidden = jax.lax.with_sharding_constraint(x, place("data", "model"))
        return jax.lax.with_sharding_constraint(hidden @ w, place("data"))

    found = compiled(product, x, w)
    assert found.flops == 2 * 8 * 16 * 64  # rows and the contraction are cut
    (one,) = found.collectives
    assert (one.kind, one.bytes, one.times) == ("all-reduce", 8 * 64 * 4, 1)
    assert collectives.axes_of(one.groups, mesh.shape) == ("model",)
    assert collectives.largest(one.groups, 8) == 4


# Of a program for a TPU v5e of 2 x 2 x 2, libtpu 0.0.42.
CUBE = {"data": 2, "fsdp": 2, "model": 2}


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("replica_groups={{0,2},{4,6},{1,3},{5,7}}, use", ("fsdp",)),
        ("replica_groups=[4,2]<=[8], dimensions={0}", ("model",)),
        ("replica_groups=[4,2]<=[2,2,2]T(2,1,0), dim", ("data",)),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1), dim", ("fsdp",)),
        ("replica_groups={}, to_apply", ("data", "fsdp", "model")),
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", ("fsdp", "model")),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=2,'axis_3'=2] "
            "{'axis_2'}, use_global_device_ids=true",
            ("fsdp",),
        ),
        (
            "replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2] {'axis_0'}",
            ("data", "fsdp"),
        ),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], "
            "device_ids=([2,2,2]T(1,0,2)) {'axis_0'}, use",
            ("fsdp",),
        ),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=2], "
            "device_ids=([2,2,2]T(2,1,0)) {'axis_0','axis_1'}, use",
            ("fsdp", "model"),
        ),
        ("source_target_pairs={{0,4},{1,5},{2,6},{3,7}}, meta", ("data",)),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)2}, use", None),
    ],
)
def test_groups_are_of_axes(text, axes):
    found = collectives.groups(f"channel_id=1, {text}")
    assert collectives.axes_of(found, CUBE) == axes


TPU = """
HloModule jit_step, is_scheduled=true

%add.5.clone (x.11: bf16[], y.11: bf16[]) -> bf16[] {
  %x.11 = bf16[]{:T(256)} parameter(0)
  %y.11 = bf16[]{:T(256)} parameter(1)
  ROOT %add.5 = bf16[]{:T(256)} add(%x.11, %y.11)
}

%all-reduce-scatter.8 (input_0.4: bf16[8,16,16]) -> bf16[8,8,16] {
  %input_0.4 = bf16[8,16,16]{2,1,0:T(8,128)(2,1)} parameter(0)
  %constant.1 = s32[]{:T(128)} constant(0)
  %all-reduce.1 = bf16[8,16,16]{2,1,0:T(8,128)(2,1)} all-reduce(%input_0.4), \
channel_id=1, replica_groups={{0,2},{4,6},{1,3},{5,7}}, to_apply=%add.5.clone
  ROOT %dynamic-slice.1 = bf16[8,8,16]{2,1,0:T(8,128)(2,1)} dynamic-slice(\
%all-reduce.1, %constant.1, %constant.1, %constant.1), dynamic_slice_sizes={8,8,16}
}

%fused (param_0.1: bf16[8,16,32], param_1.1: bf16[3,32,16]) -> bf16[8,16,16] {
  %param_0.1 = bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %param_1.1 = bf16[3,32,16]{2,1,0:T(8,128)(2,1)} parameter(1)
  %constant.2 = s32[]{:T(128)} constant(0)
  %dynamic-slice.2 = bf16[1,32,16]{2,1,0:T(8,128)(2,1)} dynamic-slice(%param_1.1, \
%constant.2, %constant.2, %constant.2), dynamic_slice_sizes={1,32,16}
  %bitcast.1 = bf16[32,16,1]{1,0,2:T(8,128)(2,1)} bitcast(%dynamic-slice.2)
  ROOT %convolution.9 = bf16[8,16,16]{2,1,0:T(8,128)(2,1)} convolution(%param_0.1, \
%bitcast.1), window={size=1}, dim_labels=0bf_io0->0bf
}

%body (param.1: (s32[], bf16[8,16,32], bf16[3,32,16])) -> (s32[], bf16[8,16,32], \
bf16[3,32,16]) {
  %param.1 = (s32[]{:T(128)}, bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)}, \
/*index=2*/bf16[3,32,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %get-tuple-element.1 = bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)} \
get-tuple-element(%param.1), index=1
  %get-tuple-element.2 = bf16[3,32,16]{2,1,0:T(8,128)(2,1)} \
get-tuple-element(%param.1), index=2
  %fusion.1 = bf16[8,16,16]{2,1,0:T(8,128)(2,1)} fusion(%get-tuple-element.1, \
%get-tuple-element.2), kind=kOutput, calls=%fused
  %fusion.2 = bf16[8,8,16]{2,1,0:T(8,128)(2,1)} fusion(%fusion.1), kind=kCustom, \
calls=%all-reduce-scatter.8
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)}, \
bf16[3,32,16]{2,1,0:T(8,128)(2,1)}) tuple(%param.1)
}

%cond (param.2: (s32[], bf16[8,16,32], bf16[3,32,16])) -> pred[] {
  %param.2 = (s32[]{:T(128)}, bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)}, \
bf16[3,32,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %constant.3 = s32[]{:T(128)} constant(3)
  %get-tuple-element.3 = s32[]{:T(128)} get-tuple-element(%param.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.3, %constant.3), direction=LT
}

ENTRY %main (param.3: bf16[8,16,32], param.4: bf16[3,32,16]) -> s32[] {
  %param.3 = bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %param.4 = bf16[3,32,16]{2,1,0:T(8,128)(2,1)} parameter(1)
  %constant.4 = s32[]{:T(128)} constant(0)
  %tuple.2 = (s32[]{:T(128)}, bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)}, \
bf16[3,32,16]{2,1,0:T(8,128)(2,1)}) tuple(%constant.4, %param.3, %param.4)
  %while.1 = (s32[]{:T(128)}, bf16[8,16,32]{2,1,0:T(8,128)(2,1)S(1)}, \
bf16[3,32,16]{2,1,0:T(8,128)(2,1)}) while(%tuple.2), condition=%cond, body=%body
  ROOT %get-tuple-element.4 = s32[]{:T(128)} get-tuple-element(%while.1), index=0
}
"""


def test_the_text_of_a_tpu_program():
    """Trip counts by the condition, products as convolutions, memory near the core."""
    found = hlo.costs(hlo.parse(TPU.replace("\\\n", "")))
    assert found.loops == (("while.1", 3),)
    assert found.flops == 3 * 2 * (8 * 16) * 32 * 16
    (one,) = found.collectives
    assert (one.kind, one.bytes, one.times) == ("reduce-scatter", 8 * 16 * 16 * 2, 3)
    # A turn: one of three kernels, the product written and read, a half of its sum.
    kernel, product = 32 * 16 * 2, 8 * 16 * 16 * 2
    compared = 4 + 4 + 1
    assert found.bytes == 3 * (kernel + 2 * product + product // 2 + compared)


KERNEL = """HloModule jit_step

ENTRY %main (param.0: s8[1,2,2], param.1: bf16[8,12,1024,64], param.2: \
bf16[8,4,256,64]) -> (f32[8,512,64], bf16[8,12,1024,64]) {
  %param.0 = s8[1,2,2]{2,1,0:T(8,128)(4,1)} parameter(0)
  %param.1 = bf16[8,12,1024,64]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %param.2 = bf16[8,4,256,64]{3,2,1,0:T(8,128)(2,1)} parameter(2)
  %splash_mha_dq_no_residuals.1 = (f32[8,512,64]{2,1,0:T(8,128)}, \
bf16[8,12,1024,64]{3,2,1,0:T(8,128)(2,1)}) custom-call(%param.0, %param.1, \
%param.2, %param.2), custom_call_target="tpu_custom_call", \
frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q_dq\\": 512}"
}}, metadata={op_name="jit(step)/splash_mha_dq_no_residuals/pallas_call"}
  ROOT %copy.1 = bf16[8,12,1024,64]{3,2,1,0:T(8,128)(2,1)} copy(%param.1)
}
"""


def test_attention_by_a_kernel():
    """Three products of queries and keys, and what comes after its lines is read."""
    found = hlo.costs(hlo.parse(KERNEL.replace("\\\n", "")))
    assert found.flops == 3 * 2 * (8 * 12 * 1024 * 64) * 256
    heads, keys = 8 * 12 * 1024 * 64 * 2, 8 * 4 * 256 * 64 * 2
    assert found.bytes == 4 + 4 * heads + 2 * keys + 8 * 512 * 64 * 4


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("module @jit_f {\n}\n")


def test_products_with_a_batch_in_the_windows():
    """The TPU compiler writes a batched product as a convolution with holes."""
    line = (
        "%c = f32[4,16,16]{1,2,0} convolution(%a, %b), "
        "window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf"
    )
    text = TPU.replace("\\\n", "")
    head = text[: text.index("ENTRY")]
    entry = (
        "ENTRY %main (a: bf16[4,16,8], b: bf16[4,16,8]) -> f32[4,16,16] {\n"
        "  %a = bf16[4,16,8]{2,1,0} parameter(0)\n"
        "  %b = bf16[4,16,8]{2,1,0} parameter(1)\n"
        f"  ROOT {line}\n}}\n"
    )
    found = hlo.costs(hlo.parse(head + entry))
    assert found.flops == 4 * 2 * 16 * 16 * 8


def test_the_kernel_positions_that_meet_an_input():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size, kernel, stride, low, dilation, spread = rng.integers(1, 5, 6)
        reach = (size - 1) * dilation + 1 + 2 * low
        out = max((reach - (kernel - 1) * spread - 1) // stride + 1, 0)
        if out == 0:
            continue
        ones = functools.partial(np.ones, dtype=np.float32)
        got = jax.lax.conv_general_dilated(
            ones((1, 1, size)),
            ones((1, 1, kernel)),
            (stride,),
            [(low, low)],
            (dilation,),
            (spread,),
        )
        assert got.shape[-1] == out
        args = (size, out, kernel, stride, low, dilation, spread)
        assert flops.touching(*map(int, args)) == got.sum()


def test_loops_of_unknown_length_count_once_and_say_so():
    text = re.sub(r"direction=LT", "direction=NE", TPU.replace("\\\n", ""))
    found = hlo.costs(hlo.parse(text))
    assert found.loops == (("while.1", 0),)
    assert found.flops == 2 * (8 * 16) * 32 * 16
