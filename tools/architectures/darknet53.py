"""DarkNet-53 (Redmon & Farhadi 2018, arXiv:1804.02767, table 1): 41,609,928 parameters with 1000 outputs."""

from __future__ import annotations

from torch import Tensor, nn

from tools.architectures.mobilenet import initialise

STAGES: tuple[tuple[int, int], ...] = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""(channels after the stride of 2, residual blocks)."""
FEATURES = 1000


def _conv(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(cout),
        nn.LeakyReLU(0.1),
    )


class Residual(nn.Module):
    """1x1 to half the channels, 3x3 back, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels // 2, 1), _conv(channels // 2, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class DarkNet53(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> float32 (N, outputs), the last 1x1 convolution on the pooled maps; published at
    256x256. With `FEATURES` outputs these are the features that the support vector machines take."""

    def __init__(self, outputs: int = FEATURES) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, 3)]
        cin = 32
        for channels, count in STAGES:
            layers.append(_conv(cin, channels, 3, 2))
            layers += [Residual(channels) for _ in range(count)]
            cin = channels
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(cin, outputs, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features((x - 0.5) * 4).mean((2, 3), keepdim=True)
        out: Tensor = self.last(pooled).flatten(1)
        return out


class TypedDarkNet53(nn.Module):
    """float32 (N, 3, H, W) in 0..1 -> logits (N, types): one dense layer behind the features, which teaches them and is
    not used afterwards. It sees them normalised: pooled features are all positive, and two dense layers in a row on
    such inputs only learn at tiny rates."""

    def __init__(self, types: int) -> None:
        super().__init__()
        self.features = DarkNet53(FEATURES)
        self.types = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, types))
        initialise(self.types)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.types(self.features(x))
        return out

    def body_parameters(self) -> list[nn.Parameter]:
        """All but the last convolution and the dense layer."""
        return list(self.features.features.parameters())
