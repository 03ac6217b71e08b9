"""VGG-19 (Simonyan & Zisserman 2014, arXiv:1409.1556, table 1, column E): 143,667,240 parameters with 1000 outputs."""

from __future__ import annotations

from torch import Tensor, nn

from tools.architectures.mobilenet import initialise

STAGES: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""(channels, 3x3 convolutions), each stage followed by a 2x2 max pooling."""
DENSE = 4096


class VGG19(nn.Module):
    """float32 (N, 3, side, side) in 0..1 -> logits (N, classes).

    The dense layers fix the input's side, a multiple of 32: 224 as published. A smaller side makes the first dense
    layer, two thirds of all parameters, smaller by its square.
    """

    def __init__(self, classes: int, *, side_px: int = 224, dropout: float = 0.5) -> None:
        super().__init__()
        if side_px % 32 or side_px < 32:
            raise ValueError(f"side_px: got {side_px}, expected a multiple of 32")
        layers: list[nn.Module] = []
        cin = 3
        for channels, count in STAGES:
            for _ in range(count):
                layers += [nn.Conv2d(cin, channels, 3, padding=1), nn.ReLU()]
                cin = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(cin * (side_px // 32) ** 2, DENSE),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(DENSE, DENSE),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(DENSE, classes),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features((x - 0.5) * 4))
        return out

    def body_parameters(self) -> list[nn.Parameter]:
        """The convolutions."""
        return list(self.features.parameters())
