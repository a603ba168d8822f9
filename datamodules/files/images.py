"""Pictures in and out of files, as ``(H, W, C)`` bytes."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.errors import InputError
from datamodules.files.whole_file import whole_file

Array = np.ndarray[Any, Any]
Color = Literal["auto", "grey", "rgb"]

SUFFIXES = (".png", ".jpg", ".jpeg")
_NOT_THE_USERS = "__MACOSX"  # what an archive of a Mac adds


def read_image(
    path: Path, size: tuple[int, int] | None, color: Color, seen: set[str] | None = None
) -> Array:
    """Reads a picture upright, at the size asked for.

    Args:
        path: PNG or JPEG file.
        size: Height and width: the picture is scaled to cover them and cut at its centre; None
            leaves it as it is.
        color: ``grey``, ``rgb``, or ``auto``: grey where the file is.
        seen: Takes what was done to the picture that its reader should say.

    Returns:
        ``(H, W, 1)`` or ``(H, W, 3)`` bytes.

    Raises:
        InputError: If the file is no whole picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            file.load()
            image = ImageOps.exif_transpose(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no whole picture ({reason}); mend or remove it") from error
    if image.mode.startswith(("I", "F")):  # 16 bits, which convert() would cut off at 255
        deep = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((deep / 257).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = _on_white(image, set() if seen is None else seen)
    grey = color == "grey" or (color == "auto" and image.mode in ("1", "L", "LA"))
    image = image.convert("L" if grey else "RGB")
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if grey else pixels


def _on_white(image: Any, seen: set[str]) -> Any:
    """A picture as a viewer shows it: what lies behind transparent pixels is no part of it."""
    from PIL import Image

    grey = image.mode == "LA"
    layer = image.convert("RGBA")
    if layer.getextrema()[3][0] == 255:
        return image.convert("L" if grey else "RGB")
    seen.add("transparent pixels stand on white")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("L" if grey else "RGB")


def as_bytes(images: Array, low: float, high: float) -> Array:
    """Images ``(N, C, H, W)`` whose values span [low, high] as ``(N, H, W, C)`` bytes."""
    scaled = (images.astype(np.float64) - low) * (255 / (high - low if high > low else 1.0))
    return scaled.round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def write_image(path: Path, pixels: Array) -> None:
    """Writes ``(H, W, C)`` bytes, of 1, 3 or 4 channels, as a PNG file."""
    from PIL import Image

    with whole_file(path, "wb") as file:
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")


def image_grid(images: Array, columns: int, margin: int = 2) -> Array:
    """Pictures ``(N, H, W, C)`` side by side, row by row, on white."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cell = (height + margin, width + margin)
    grid = np.full((rows * cell[0] + margin, columns * cell[1] + margin, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (
            margin + place * side for place, side in zip(divmod(i, columns), cell, strict=True)
        )
        grid[top : top + height, left : left + width] = image
    return grid


def find_images(folder: str) -> tuple[list[Path], list[str] | None]:
    """Pictures of a folder in order of their names, and the subfolder each one is in.

    Returns:
        Files, and the class of each; None where the pictures lie in the folder itself.

    Raises:
        InputError: If there are none, or some in subfolders and some beside them.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"no folder {folder!r}; give a folder of PNG or JPEG files")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(
            part.startswith(".") or part == _NOT_THE_USERS for part in path.relative_to(root).parts
        )
        and path.is_file()
    )
    if not found:
        raise InputError(f"{folder} holds no picture; {', '.join(SUFFIXES)} are read")
    classes = [path.relative_to(root).parts[:-1] for path in found]
    if not any(classes):
        return found, None
    if not all(classes):
        stray = found[next(i for i, parts in enumerate(classes) if not parts)]
        raise InputError(f"{stray} lies beside folders of pictures; a class is a folder of its own")
    return found, [parts[0] for parts in classes]


def class_folder(name: Any) -> str:
    """A class's name as that of a folder: a word of the user's may hold a path."""
    plain = re.sub(r"[/\\\0]", "_", str(name))
    return plain[:80] if plain.strip(". ") else "_"


def columns_of(count: int, classes: Sequence[int] | None) -> int:
    """Columns of a grid: one a class where they come in turn, else about a square."""
    if classes is not None and len(set(classes)) > 1:
        return len(set(classes))
    return max(1, round(math.sqrt(count)))
