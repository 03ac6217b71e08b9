"""Random appearance: what stain, lamp, lens, camera and file format do to a picture. uint8 BGR in, uint8 BGR out."""

from __future__ import annotations

import cv2
import numpy as np

LUMINANCE_BGR = np.array([0.114, 0.587, 0.299], np.float32)


def vary_colour(rng: np.random.Generator, picture: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Stain and white balance: saturation, hue (a rotation of the colour axes), channel gains, gamma, contrast,
    brightness."""
    s = strength
    mix = np.eye(3, dtype=np.float32)
    saturation = float(np.exp(rng.normal(0, 0.3 * s)))
    mix = saturation * mix + (1 - saturation) * np.tile(LUMINANCE_BGR, (3, 1))
    angle = rng.normal(0, 0.12 * s)
    axis = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    mix = (rotation @ mix).astype(np.float32)
    gains = np.exp(rng.normal(0, 0.08 * s, 3)).astype(np.float32)
    out = cv2.transform(picture, mix * gains[:, None])
    gamma = float(np.exp(rng.normal(0, 0.2 * s)))
    contrast = float(np.exp(rng.normal(-0.1 * s, 0.25 * s)))
    brightness = float(np.exp(rng.normal(-0.1 * s, 0.18 * s)))
    ramp = (np.arange(256) / 255.0) ** gamma
    ramp = (ramp - 0.6) * contrast + 0.6
    return cv2.LUT(out, (ramp * brightness * 255).clip(0, 255).astype(np.uint8))


def vary_stain(rng: np.random.Generator, picture: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Another stain: what dyes absorb (optical density) is mixed anew between the channels and made paler or darker,
    the glass keeps its colour."""
    density = (-np.log((np.arange(256, dtype=np.float32) + 4) / 260)).astype(np.float32)
    glass = density[np.percentile(picture.reshape(-1, 3)[::7], 90, axis=0).astype(np.uint8)]
    mix = np.eye(3) + rng.normal(0, 0.15 * strength, (3, 3))
    mix *= np.exp(rng.normal(-0.1 * strength, 0.35 * strength)) / mix.sum(1, keepdims=True).clip(0.3)
    offset = glass - mix @ glass
    dyed = cv2.transform(cv2.LUT(picture, density), np.column_stack((mix, offset)).astype(np.float32))
    cv2.exp(cv2.multiply(dyed, -1.0, dst=dyed), dst=dyed)  # type: ignore[call-overload]
    lit = cv2.multiply(dyed, 260.0, dst=dyed)  # type: ignore[call-overload]
    return np.asarray(cv2.subtract(lit, 4.0, dtype=cv2.CV_8U))  # type: ignore[call-overload]


def vary_haze(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Low contrast: a veil of one light colour over everything, as stray light and dirty immersion oil lay it."""
    share = rng.uniform(0.1, 0.5)
    veil = (rng.uniform(110, 240) * np.exp(rng.normal(0, 0.06, 3))).clip(0, 255)
    return cv2.transform(picture, np.column_stack((np.eye(3) * (1 - share), veil * share)).astype(np.float32))


def vary_light(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Uneven light: a smooth field of gain and colour over the picture, with or without a vignette."""
    height, width = picture.shape[:2]
    grid = np.exp(rng.normal(0, rng.uniform(0.02, 0.18), (3, 3, 1)) + rng.normal(0, rng.uniform(0.0, 0.1), (3, 3, 3)))
    gain = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.3:
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        gain *= (1 - rng.uniform(0.05, 0.4) * (x * x + y * y) / 2).astype(np.float32)[..., None]
    return cv2.multiply(picture, gain, dtype=cv2.CV_8U)


def vary_optics(rng: np.random.Generator, picture: np.ndarray, rbc_diameter_px: float = 0.0) -> np.ndarray:
    """One of: defocus (the wider the larger the cells are), motion blur, dark or bright rims (out of focus on the
    other side), or nothing."""
    kind = rng.random()
    if kind < 0.2:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, max(1.6, 0.035 * rbc_diameter_px)))
    if kind < 0.27:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), rng.uniform(0, 180), 1)
        turned = cv2.warpAffine(kernel, turn, (length, length))
        return cv2.filter2D(picture, -1, np.asarray(turned / max(float(turned.sum()), 1e-6), np.float32))
    if kind < 0.42:
        amount = rng.uniform(0.3, 1.5)
        blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.0, 3.0))
        return cv2.addWeighted(picture, 1 + amount, blurred, -amount, 0)
    return picture


def vary_sensor(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Sensor noise and JPEG, each sometimes."""
    if rng.random() < 0.25:
        noise = rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(1, 7))
        picture = cv2.add(picture, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        quality = int(rng.integers(35, 95))
        coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return picture
