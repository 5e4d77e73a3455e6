"""U-Net against the paper written in torch: `pytest -m parity`."""

import jax
import numpy as np
import optax
import pytest

from fmjax.interop import names
from fmjax.models import unet

pytestmark = pytest.mark.parity

needs = "needs the parity extra: pip install 'fmjax[parity]'"
torch = pytest.importorskip("torch", reason=needs)


class Reference(torch.nn.Module):
    """Figure 1 of the paper, level by level."""

    def __init__(self, grey, channels, classes, padding):
        super().__init__()
        conv, around = torch.nn.Conv2d, 1 if padding == "same" else 0
        self.parts, before = torch.nn.ModuleDict(), grey
        for i, width in enumerate(channels):
            self.parts[f"down{i}a"] = conv(before, width, 3, padding=around)
            self.parts[f"down{i}b"] = conv(width, width, 3, padding=around)
            before = width
        for i in range(len(channels) - 2, -1, -1):
            deep, width = channels[i + 1], channels[i]
            self.parts[f"up{i}"] = torch.nn.ConvTranspose2d(deep, width, 2, stride=2)
            self.parts[f"join{i}a"] = conv(2 * width, width, 3, padding=around)
            self.parts[f"join{i}b"] = conv(width, width, 3, padding=around)
        self.parts["classify"] = conv(channels[0], classes, 1)
        self.depth = len(channels)

    def twice(self, name, x):
        for part in "ab":
            x = torch.relu(self.parts[name + part](x))
        return x

    def forward(self, x):
        kept = []
        for i in range(self.depth):
            if i:
                x = torch.nn.functional.max_pool2d(x, 2)
            x = self.twice(f"down{i}", x)
            kept.append(x)
        for i in range(self.depth - 2, -1, -1):
            x = self.parts[f"up{i}"](x)
            side, (height, width) = kept[i], x.shape[2:]
            top = (side.shape[2] - height) // 2
            left = (side.shape[3] - width) // 2
            side = side[:, :, top : top + height, left : left + width]
            x = self.twice(f"join{i}", torch.cat([side, x], 1))
        return self.parts["classify"](x)


def entry(name, value):
    """A torch parameter as ours: path and array."""
    _, part, leaf = name.split(".")
    if leaf == "bias":
        return f"{part}/bias", value
    # [out, in, h, w] there, and [in, out, h, w] where transposed; the other way round
    # here too (transpose_kernel).
    return f"{part}/kernel", value.transpose(2, 3, 1, 0)


CASES = {
    "same": (1, (4, 6, 8), 3, "same", (24, 20)),
    "valid": (3, (5, 7, 9), 2, "valid", (44, 60)),
    "valid-deep": (1, (3, 4, 5, 6, 7), 4, "valid", (188, 204)),
    "two-levels": (2, (16, 32), 5, "same", (10, 14)),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_paper_in_torch(name):
    grey, channels, classes, padding, size = CASES[name]
    torch.manual_seed(0)
    reference = Reference(grey, channels, classes, padding)
    net = unet.Model(classes=classes, channels=channels, padding=padding)
    random = np.random.default_rng(0)
    images = random.normal(size=(2, *size, grey)).astype(np.float32)
    flat = dict(entry(k, p.detach().numpy()) for k, p in reference.named_parameters())
    variables = {"params": names.unflatten(flat)}
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    assert {k: v.shape for k, v in names.flatten(shapes).items()} == {
        k: v.shape for k, v in flat.items()
    }
    logits = reference(torch.tensor(images).permute(0, 3, 1, 2))
    labels = random.integers(0, classes, (2, *logits.shape[2:]))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    loss.backward()

    def ours(params):
        out = net.apply({"params": params}, images)
        entropy = optax.softmax_cross_entropy_with_integer_labels(out, labels)
        return entropy.mean(), out

    run = jax.jit(jax.value_and_grad(ours, has_aux=True))
    (value, out), grads = run(variables["params"])
    want = logits.detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(out, want, atol=1e-5)
    assert float(value) == pytest.approx(float(loss.detach()), rel=1e-5)
    grads = names.flatten(grads)
    for key, parameter in reference.named_parameters():
        path, wanted = entry(key, parameter.grad.numpy())
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(grads[path], wanted, atol=1e-4 * scale, err_msg=path)


def test_the_paper_s_parameters_are_as_many():
    reference = Reference(1, unet.SIZES["paper"]["channels"], 2, "valid")
    assert sum(p.numel() for p in reference.parameters()) == 31_030_658
