"""Inception-ResNet v1, the network of FaceNet.

Source:
    Szegedy et al. 2016, Inception-v4, Inception-ResNet and the Impact of Residual Connections on
    Learning, arXiv:1602.07261; layers are called as in facenet-pytorch (MIT licence, copyright 2019
    Timothy Esler), so that its files load.
"""

import torch
from torch import Tensor, nn

WIDTH = 512
"""Values of an embedding."""


class Convolved(nn.Module):
    """Convolution, normalisation, rectifier."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps what is above zero."""
        return self.bn(self.conv(x)).relu()


class Branches(nn.Module):
    """Several ways side by side, joined; with a `scale` they are added to what came in."""

    def __init__(
        self,
        *ways: nn.Module,
        width: tuple[int, int] | None = None,
        scale: float = 0.0,
        rectified: bool = True,
    ) -> None:
        super().__init__()
        for at, way in enumerate(ways):
            setattr(self, f"branch{at}", way)
        self.count, self.scale, self.rectified = len(ways), scale, rectified
        if width is not None:
            joined, out = width
            self.conv2d = nn.Conv2d(joined, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """All of them."""
        joined = torch.cat([getattr(self, f"branch{at}")(x) for at in range(self.count)], 1)
        if not self.scale:
            return joined
        added = self.conv2d(joined) * self.scale + x
        return added.relu() if self.rectified else added


def _small(scale: float = 0.17) -> Branches:
    return Branches(
        Convolved(256, 32, 1),
        nn.Sequential(Convolved(256, 32, 1), Convolved(32, 32, 3, padding=1)),
        nn.Sequential(
            Convolved(256, 32, 1), Convolved(32, 32, 3, padding=1), Convolved(32, 32, 3, padding=1)
        ),
        width=(96, 256),
        scale=scale,
    )


def _middle(scale: float = 0.10) -> Branches:
    return Branches(
        Convolved(896, 128, 1),
        nn.Sequential(
            Convolved(896, 128, 1),
            Convolved(128, 128, (1, 7), padding=(0, 3)),
            Convolved(128, 128, (7, 1), padding=(3, 0)),
        ),
        width=(256, 896),
        scale=scale,
    )


def _large(scale: float = 0.20, *, rectified: bool = True) -> Branches:
    return Branches(
        Convolved(1792, 192, 1),
        nn.Sequential(
            Convolved(1792, 192, 1),
            Convolved(192, 192, (1, 3), padding=(0, 1)),
            Convolved(192, 192, (3, 1), padding=(1, 0)),
        ),
        width=(384, 1792),
        scale=scale,
        rectified=rectified,
    )


class InceptionResnet(nn.Module):
    """From (N, 3, 160, 160), values from -1 to 1, to (N, 512) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = Convolved(3, 32, 3, 2)
        self.conv2d_2a = Convolved(32, 32, 3)
        self.conv2d_2b = Convolved(32, 64, 3, padding=1)
        self.conv2d_3b = Convolved(64, 80, 1)
        self.conv2d_4a = Convolved(80, 192, 3)
        self.conv2d_4b = Convolved(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(_small() for _ in range(5)))
        self.mixed_6a = Branches(
            Convolved(256, 384, 3, 2),
            nn.Sequential(
                Convolved(256, 192, 1), Convolved(192, 192, 3, padding=1), Convolved(192, 256, 3, 2)
            ),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*(_middle() for _ in range(10)))
        self.mixed_7a = Branches(
            nn.Sequential(Convolved(896, 256, 1), Convolved(256, 384, 3, 2)),
            nn.Sequential(Convolved(896, 256, 1), Convolved(256, 256, 3, 2)),
            nn.Sequential(
                Convolved(896, 256, 1), Convolved(256, 256, 3, padding=1), Convolved(256, 256, 3, 2)
            ),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_3 = nn.Sequential(*(_large() for _ in range(5)))
        self.block8 = _large(1.0, rectified=False)
        self.last_linear = nn.Linear(1792, WIDTH, bias=False)
        self.last_bn = nn.BatchNorm1d(WIDTH, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_3b(nn.functional.max_pool2d(x, 3, 2))
        x = self.repeat_1(self.conv2d_4b(self.conv2d_4a(x)))
        x = self.repeat_2(self.mixed_6a(x))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        x = self.last_bn(self.last_linear(x.mean(dim=(2, 3))))
        return nn.functional.normalize(x, dim=1)
