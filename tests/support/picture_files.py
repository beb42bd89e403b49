"""Made-up picture files that tests of datasets share."""

import numpy as np
from PIL import Image


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_images(folder, num, size=(64, 64), seed=0, ending="png"):
    """``num`` pictures of ``size`` (W, H), lossless unless it ends in JPEG; returns them as (num, H, W, 3)."""
    folder.mkdir(parents=True)
    images = random_images(num, size[1], size[0], 3, seed=seed)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"image_{i:04d}.{ending}")
    return images


def write_imagenet(root, train=9, val=3):
    """A fake ImageNet of two classes: noise, dark and bright, of several sizes, one grey and one CMYK."""
    for part, num in (("train", train), ("val", val)):
        for label, kind in enumerate(("n01", "n02")):
            folder = root / "imagenet" / part / kind
            folder.mkdir(parents=True)
            for i in range(num):
                pixels = random_images(40 + 5 * i, 64 - 4 * i, 3, seed=7 * i + label) // 2 + 120 * label
                image = Image.fromarray(pixels.astype(np.uint8))
                mode = {0: "L", 1: "CMYK"}.get(i, "RGB")
                image.convert(mode).save(folder / f"{part}_{i:02d}.JPEG", quality=95)
    return root / "imagenet"
