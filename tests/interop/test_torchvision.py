"""Convolutional nets by torchvision's names: goldens, round trips, what is refused."""

import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.hostile import torch_writer
from fmjax import interop
from fmjax.interop import names, torchvision
from fmjax.models import alexnet, inception, mobilenet, resnet
from tests.golden import convnet_cases as cases

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "convnets"
COMMITTED = [name for name, case in cases.CASES.items() if case.golden]


def write(case, path):
    net, shapes = cases.shapes_of(case)
    tensors = cases.weights(shapes)
    torch_writer.write(path, tensors, ("state_dict",))
    return net, tensors


def test_every_golden_case_is_committed():
    assert sorted(COMMITTED) == sorted(p.stem for p in GOLDEN.glob("*.safetensors"))


@pytest.mark.parametrize("name", COMMITTED)
def test_equals_what_torch_computed(name, tmp_path):
    case = cases.CASES[name]
    write(case, tmp_path / "a.pth")
    net, variables = torchvision.load(tmp_path / "a.pth", **dict(case.ours))
    expected = load_file(GOLDEN / f"{name}.safetensors")
    given = cases.inputs(case, net.classes)
    # The gradients of 94 convolutions take long to compile; `-m parity` has them.
    gradients = case.family != "inception"
    got = cases.ours(case, net, variables, *given, gradients=gradients)
    if not gradients:
        expected = {k: v for k, v in expected.items() if not k.startswith("grad/")}
    kinds = {key.split("/")[0] for key in expected}
    assert kinds >= {"output", "loss"} | (
        {"stat"} if case.family != "alexnet" else set()
    )
    cases.assert_within_bars(cases.differences(expected, got), case.tiny)


@pytest.mark.parametrize(
    ("name", "naming"),
    [
        ("resnet-small", "timm"),
        ("alexnet", "torchvision"),
        ("mobilenet", "torchvision"),
        ("mobilenet", "timm"),
        ("inception", "torchvision"),
    ],
)
def test_out_and_in_again_is_bit_equal(name, naming, tmp_path):
    case = cases.CASES[name]
    net, tensors = write(case, tmp_path / "a.pth")
    same, variables = torchvision.load(tmp_path / "a.pth", **dict(case.ours))
    assert (
        same.clone(dropout=0.0) == net.clone(dropout=0.0)
        if hasattr(net, "dropout")
        else same == net
    )
    out = tmp_path / "out" / "model.safetensors"
    out.parent.mkdir()
    torchvision.save(out, net, variables, naming=naming)
    written = load_file(out)
    if naming == "torchvision":
        counts = {k for k in written if k.endswith("num_batches_tracked")}
        assert set(written) - counts == set(tensors)
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(written[key], tensor)
    again, back = torchvision.load(out.parent, **dict(case.ours))
    assert again == same
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.fixture
def small(tmp_path):
    """(path, tensors) of a narrow ResNet."""
    path = tmp_path / "a.safetensors"
    _, shapes = cases.shapes_of(cases.CASES["resnet"])
    tensors = cases.weights(shapes)
    save_file(tensors, path)
    return path, tensors


class TestRead:
    def test_a_net_is_what_its_tensors_say(self, small):
        net, variables = torchvision.load(small[0])
        assert net == resnet.Model(classes=5, depths=(1, 2), width=4)
        assert set(variables) == {"params", "batch_stats"}
        frozen, _ = torchvision.load(small[0], frozen_norm=True, dtype="bfloat16")
        assert frozen == net.clone(frozen_norm=True, dtype="bfloat16")

    def test_a_fresh_head_takes_a_key(self, small):
        path, tensors = small
        with pytest.raises(
            ValueError, match=r"a\.safetensors: fc\.(bias|weight) has shape \(5,"
        ):
            torchvision.load(path, classes=3)
        net, variables, report = torchvision.read(
            path, classes=3, key=jax.random.key(0)
        )
        assert report.unused == ("fc.bias", "fc.weight")
        assert report.missing == ("params/classify/bias", "params/classify/kernel")
        assert variables["params"]["classify"]["kernel"].shape == (8, 3)
        kernel = variables["params"]["stem"]["conv"]["kernel"]
        want = tensors["conv1.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel, want)
        assert net.classes == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda t: t.pop("bn1.running_var"),
                "no tensors for batch_stats/stem/norm/var",
            ),
            (lambda t: t.update(extra=np.ones(2, np.float32)), "does not know: extra"),
            (lambda t: t.pop("fc.weight"), "are of none of resnet, alexnet, inception"),
            (
                lambda t: t.update({"bn1.num_batches_tracked": np.ones(2, np.int64)}),
                r"bn1\.num_batches_tracked is int64 \(2,\), not one number",
            ),
            (
                lambda t: t.update({"bn1.bias": np.ones(3, np.float32)}),
                r"bn1\.bias has shape \(3,\), .* \(4,\)",
            ),
        ],
    )
    def test_files_that_do_not_fit_are_named(self, small, change, message):
        path, tensors = small
        change(tensors)
        save_file(tensors, path)
        with pytest.raises(ValueError, match=rf"a\.safetensors.*{message}"):
            torchvision.load(path)

    def test_an_auxiliary_classifier_that_is_not_asked_for_is_left_out(self, tmp_path):
        case = cases.CASES["inception-both"]
        _, tensors = write(case, tmp_path / "a.pth")
        net, _, report = torchvision.read(
            tmp_path / "a.pth", auxiliary=False, **dict(case.ours)
        )
        assert not net.auxiliary
        assert report.unused == tuple(k for k in tensors if k.startswith("AuxLogits"))
        assert len(report.unused) == 12

    def test_the_small_inception_is_recognised(self, tmp_path):
        fields = inception.SIZES["small"] | {"classes": 3, "width": 1 / 16}
        net = inception.Model(**fields)
        variables = jax.jit(net.init)(
            jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32)
        )
        out = tmp_path / "model.safetensors"
        torchvision.save(out, net, variables)
        assert "Inception_2d.branch3x3.bn.running_var" in load_file(out)
        again, back = torchvision.load(out, dropout=0.0)
        assert again == net
        jax.tree.map(np.testing.assert_array_equal, back, variables)

    @pytest.mark.parametrize("width", ["0.5", "1.4"])
    def test_mobilenet_s_width_is_recognised(self, width):
        from fmjax.interop.torchvision_names import FAMILIES

        family = next(f for f in FAMILIES if f.model is mobilenet.Model)
        net = mobilenet.Model(**mobilenet.SIZES[width])
        image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
        variables = jax.eval_shape(net.init, jax.random.key(0), image)
        zeros = {
            path: np.zeros(leaf.shape, np.bool_)
            for path, leaf in names.flatten(variables).items()
        }
        for naming in ("torchvision", "timm"):
            layers, rest = family.names(net, naming)
            tensors = names.collect(zeros, torchvision.entries(layers, rest))
            shapes = {key: value.shape for key, value in tensors.items()}
            assert all(mark in shapes for mark in family.marks[naming])
            assert mobilenet.Model(**family.fields(shapes)) == net


class TestSave:
    def test_what_is_not_the_net_s_is_named(self, small, tmp_path):
        net, variables = torchvision.load(small[0])
        target = tmp_path / "b.safetensors"
        with pytest.raises(
            ValueError, match="naming is one of torchvision, timm, not 'hf'"
        ):
            torchvision.save(target, net, variables, naming="hf")
        with pytest.raises(ValueError, match="see batch_stats/stage1_block0/"):
            torchvision.save(target, net, {"params": variables["params"]})
        with pytest.raises(ValueError, match="see params/classify/bias"):
            torchvision.save(target, net.clone(classes=3), variables)
        from fmjax.models import cnn

        with pytest.raises(ValueError, match=r"fmjax\.models\.cnn has no names"):
            torchvision.save(target, cnn.Model(), variables)
        assert not target.exists()


def test_a_directory_has_one_file(small):
    path, tensors = small
    net, _ = interop.load(path.parent)
    assert net == torchvision.load(path)[0]
    torch_writer.write(path.with_suffix(".pth"), tensors)
    with pytest.raises(FileNotFoundError, match=r"it has a\.pth, a\.safetensors"):
        interop.load(path.parent)
    again, variables = interop.load(path.with_suffix(".pth"), classes=5)
    assert again == net
    assert set(variables) == {"params", "batch_stats"}


def test_alexnet_flattens_channel_by_channel(tmp_path):
    # One channel of the last map at a time reaches the dense layer's row for it.
    case = cases.CASES["alexnet"]
    net, _ = write(case, tmp_path / "a.pth")
    assert isinstance(net, alexnet.Model)
    _, variables = torchvision.load(tmp_path / "a.pth")
    weight = torchvision.tensors_of(tmp_path / "a.pth")["classifier.1.weight"]
    np.testing.assert_array_equal(variables["params"]["dense0"]["kernel"], weight.T)
