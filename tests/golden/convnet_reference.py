"""Convolutional nets in torch: timm's, and written here where timm has no such net.

The modules have torchvision's names.
"""

import sys

import torch
from torch import nn
from torch.nn import functional as F

from . import convnet_cases, timm_alone

timm = timm_alone.import_timm()


class Block(nn.Module):
    def __init__(self, inside, width, stride, bottleneck, shortcut):
        super().__init__()
        features = 4 * width if bottleneck else width
        sizes = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        outs = [width, width, features] if bottleneck else [width, features]
        self.count, self.stride, self.shortcut = len(sizes), stride, shortcut
        for i, ((kernel, step), out) in enumerate(zip(sizes, outs, strict=True), 1):
            conv = nn.Conv2d(inside, out, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(out))
            inside = out
        self.more = 0
        given = self.conv1.in_channels
        if shortcut == "project" and (stride > 1 or given != features):
            project = nn.Conv2d(given, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(features))
        elif shortcut == "zeros":
            self.more = features - given

    def forward(self, x):
        around = x
        if hasattr(self, "downsample"):
            around = self.downsample(x)
        elif self.shortcut == "zeros":
            low = self.more // 2
            around = x[:, :, :: self.stride, :: self.stride]
            around = F.pad(around, (0, 0, 0, 0, low, self.more - low))
        for i in range(1, self.count + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = F.relu(x) if i < self.count else x
        return F.relu(x + around if self.shortcut else x)


class ResNet(nn.Module):
    """He et al. 2016: figure 5, table 1, section 4.2."""

    def __init__(self, depths, width, bottleneck, small, shortcut, channels, classes):
        super().__init__()
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1, self.small = nn.BatchNorm2d(width), small
        self.stages, inside = len(depths), width
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                step = 2 if i and not j else 1
                blocks.append(Block(inside, width << i, step, bottleneck, shortcut))
                inside = (width << i) * (4 if bottleneck else 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inside, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.small else F.max_pool2d(x, 3, 2, 1)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


def resnet(
    depths,
    width,
    classes,
    bottleneck=False,
    small=False,
    shortcut="project",
    channels=3,
):
    return ResNet(depths, width, bottleneck, small, shortcut, channels, classes)


class AlexNet(nn.Module):
    """Krizhevsky 2014, with dropout left out."""

    def __init__(self, widths, dense, classes):
        super().__init__()
        sizes = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        layers, inside = [], 3
        for i, (width, (kernel, stride, padding)) in enumerate(
            zip(widths, sizes, strict=True)
        ):
            layers += [nn.Conv2d(inside, width, kernel, stride, padding), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if i in (0, 1, 4) else []
            inside = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Identity(),
            nn.Linear(36 * inside, dense),
            nn.ReLU(),
            nn.Identity(),
            nn.Linear(dense, dense),
            nn.ReLU(),
            nn.Linear(dense, classes),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def alexnet(widths, dense, classes=10):
    return AlexNet(widths, dense, classes)


def conv_bn(inside, out, kernel, stride=1, groups=1, act=True):
    conv = nn.Conv2d(
        inside, out, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out), *([nn.ReLU6()] if act else []))


class Inverted(nn.Module):
    def __init__(self, inside, out, stride, expansion):
        super().__init__()
        wide = inside * expansion
        layers = [conv_bn(inside, wide, 1)] if expansion > 1 else []
        layers += [conv_bn(wide, wide, 3, stride, wide)]
        self.conv = nn.Sequential(*layers, *conv_bn(wide, out, 1, act=False))
        self.same = stride == 1 and inside == out

    def forward(self, x):
        return x + self.conv(x) if self.same else self.conv(x)


def mobilenet(width):
    """Sandler et al. 2018, table 2; channels rounded to multiples of 8."""

    def scaled(channels):
        near = max(8, int(channels * width + 4) // 8 * 8)
        return near if near >= 0.9 * channels * width else near + 8

    inside = scaled(32)
    layers = [conv_bn(3, inside, 3, 2)]
    table = "1 16 1 1, 6 24 2 2, 6 32 3 2, 6 64 4 2, 6 96 3 1, 6 160 3 2, 6 320 1 1"
    for row in table.split(","):
        expansion, channels, repeats, stride = map(int, row.split())
        for i in range(repeats):
            out = scaled(channels)
            layers.append(Inverted(inside, out, stride if i == 0 else 1, expansion))
            inside = out
    layers.append(conv_bn(inside, 1280, 1))
    net = nn.Sequential()
    net.features = nn.Sequential(*layers)
    net.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, 10))
    return net


def timm_mobilenet(width):
    module = sys.modules["timm.models.efficientnet"]
    make = module._gen_mobilenet_v2
    return make("mobilenetv2_100", channel_multiplier=width, num_classes=10)


def timm_resnet(name):
    return timm.create_model(name, num_classes=10)


def timm_inception(narrow, both=False):
    """narrow: all channels, multiples of 16, are divided by it."""
    module = sys.modules["timm.models.inception_v3"]
    whole = module.ConvNormAct

    def thin(inside, out, **fields):
        return whole(
            inside if inside == 3 else inside // narrow, out // narrow, **fields
        )

    module.ConvNormAct = thin
    try:
        net = module.InceptionV3(num_classes=10, aux_logits=both)
    finally:
        module.ConvNormAct = whole
    net.fc = nn.Linear(2048 // narrow, 10)
    if both:
        net.AuxLogits.fc = nn.Linear(768 // narrow, 10)
    return net


def model(case):
    """The reference with weights from `convnet_cases.weights`, by sorted names."""
    net = globals()[case.kind](**dict(case.fields))
    shapes = {name: tuple(t.shape) for name, t in sorted(net.state_dict().items())}
    counts = {n: s for n, s in shapes.items() if n.endswith("num_batches_tracked")}
    arrays = convnet_cases.weights({n: s for n, s in shapes.items() if n not in counts})
    state = {name: torch.tensor(array) for name, array in arrays.items()}
    net.load_state_dict(state, strict=False)
    return net


def compute(case, net, images, label):
    """Intermediates, outputs, loss, gradients and statistics; see convnet_cases."""
    images = torch.tensor(images).permute(0, 3, 1, 2)
    label, out, hooks = torch.tensor(label), {}, []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def keep(_module, _inputs, output, name=name):
                value = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
                out[f"act/{name}"] = value.clone()

            hooks.append(module.register_forward_hook(keep))
    both = dict(case.fields).get("both", False)
    net.eval()
    first = net(images)
    outputs = [first[0] if isinstance(first, tuple) else first]
    if both:  # in evaluation some versions of timm leave the second one out
        at_17 = []
        hook = net.Mixed_6e.register_forward_hook(lambda *a: at_17.append(a[2]))
        net(images)
        outputs.append(net.AuxLogits(at_17[0]))
        hook.remove()
    for hook in hooks:
        hook.remove()
    net.train()
    logits = net(images)
    logits = logits if both else (logits,)
    loss = sum(
        F.cross_entropy(x, label) * weight
        for x, weight in zip(logits, (1.0, 0.4), strict=False)
    )
    net.zero_grad()
    loss.backward()
    out |= {f"output/{i}": x for i, x in enumerate(outputs)} | {"loss": loss}
    out |= {f"grad/{name}": p.grad for name, p in net.named_parameters()}
    for name, buffer in net.named_buffers():
        if not name.endswith("num_batches_tracked"):
            out[f"stat/{name}"] = buffer
    return {name: tensor.detach().numpy().copy() for name, tensor in out.items()}


def exactly(case, images, label):
    """What the reference computes in float64, and how far float32 is from it."""
    expected = compute(case, model(case).double(), images.astype("float64"), label)
    single = compute(case, model(case), images, label)
    return expected, convnet_cases.differences(expected, single)
