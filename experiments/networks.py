"""Frozen networks that nobody here trained, and where their weights lie."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LENET_LAYERS", "RESNET_LAYERS", "LeNet", "ResNet20", "lpips", "squeezenet_features"]

LENET_LAYERS = ("conv1", "pool1", "conv2", "pool2", "relu", "ip2")
RESNET_LAYERS = ("relu", "layer1", "layer2", "layer3", "mean", "linear")


def root() -> Path:
    """Folder of data and models, ``$SVAE_DATA``.

    Raises:
        FileNotFoundError: If it holds no models.
    """
    folder = Path(os.environ.get("SVAE_DATA", "data"))
    if not (folder / "models").is_dir():
        raise FileNotFoundError(
            f"no folder models in {folder}: set $SVAE_DATA to the folder that holds the weights "
            "of lenet_mnist_caffe, cifar10_resnet20 and squeezenet1_1_imagenet"
        )
    return folder


def weights(name: str) -> Any:
    """A state dict; nothing but tensors is unpickled."""
    return torch.load(root() / "models" / name, weights_only=True, map_location="cpu")


class LeNet(nn.Module):
    """Caffe's LeNet for MNIST, of images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool1 = nn.Conv2d(1, 20, 5), nn.MaxPool2d(2)
        self.conv2, self.pool2 = nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)
        self.ip1, self.relu, self.ip2 = nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.pool2(self.conv2(self.pool1(self.conv1(x * 255 / 256))))
        return self.ip2(self.relu(self.ip1(maps.flatten(1))))

    @classmethod
    def trained(cls) -> "LeNet":
        """With its weights."""
        net = cls()
        net.load_state_dict(weights("lenet_mnist_caffe/lenet_mnist_caffe.pth"))
        return net.eval()


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.stride, self.added = stride, n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.added:
            half = self.added // 2
            x = nn.functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half)
            )
        return (out + x).relu()


class ResNet20(nn.Module):
    """The ResNet-20 of He et al. for CIFAR-10, of images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = (
            nn.Conv2d(3, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                *(
                    BasicBlock(n_in if i == 0 else n_out, n_out, stride if i == 0 else 1)
                    for i in range(3)
                )
            )
            for n_in, n_out, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(64, 10)
        self.centre: Tensor
        self.spread: Tensor
        centre, spread = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.register_buffer("centre", torch.tensor(centre).view(3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(spread).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1((x - self.centre) / self.spread)))
        return self.linear(self.mean(self.layer3(self.layer2(self.layer1(x)))))

    @classmethod
    def trained(cls) -> "ResNet20":
        """With its weights."""
        state = weights("cifar10_resnet20/resnet20-12fca82f.th")["state_dict"]
        net = cls()
        net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
        return net.eval()


def squeezenet() -> Any:
    """SqueezeNet 1.1 with ImageNet's weights."""
    from torchvision.models import squeezenet1_1

    net = squeezenet1_1(weights=None)
    net.load_state_dict(weights("squeezenet1_1_imagenet/squeezenet1_1.pth"))
    return net.eval().requires_grad_(False)


def lpips(side: int = 64) -> Any:
    r"""From two batches of images in [0, 1] to how different they look: LPIPS on SqueezeNet.

    .. math:: \sum_l \frac{1}{H_l W_l} \sum_{hw} w_l \cdot (\hat f^a_{lhw} - \hat f^b_{lhw})^2

    with features of unit length. Its heads were fitted to another SqueezeNet than the one here:
    compare distances with each other, not with those of papers.

    References:
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al.,
        2018), https://arxiv.org/abs/1801.03924

    Args:
        side: Pixels that images are scaled to, which the network's strides need.
    """
    net = squeezenet().features
    heads = [head for _, head in sorted(weights("lpips_v0.1/squeeze.pth").items())]
    layers = (1, 4, 7, 9, 10, 11, 12)
    centre = torch.tensor((-0.030, -0.088, -0.188)).view(3, 1, 1)
    spread = torch.tensor((0.458, 0.448, 0.450)).view(3, 1, 1)

    def seen(x: Tensor) -> list[Tensor]:
        x = nn.functional.interpolate(x.expand(-1, 3, -1, -1), size=side, mode="bilinear")
        x, found = (2 * x - 1 - centre) / spread, []
        for i, layer in enumerate(net):
            x = layer(x)
            if i in layers:
                found.append(nn.functional.normalize(x, dim=1, eps=1e-10))
        return found

    def distance(a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(heads, seen(a), seen(b), strict=True)
        return torch.stack([(head * (p - q).square()).sum(1).mean((1, 2)) for head, p, q in pairs])

    return lambda a, b: distance(a, b).sum(0)


def squeezenet_features() -> Any:
    """From images in [0, 1] to the 512 mean features of SqueezeNet 1.1, on ImageNet's scale."""
    net = squeezenet()
    centre = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    spread = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)

    def features(x: Tensor) -> Tensor:
        larger = nn.functional.interpolate(x, size=64, mode="bilinear", antialias=True)
        return net.features((larger - centre) / spread).mean((2, 3))

    return features
