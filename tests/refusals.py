"""What the tests of wrong inputs share."""

from pathlib import Path

CONFIG = str(Path(__file__).parent / "tiny.yaml")
FIT = ["fit", "--config", CONFIG, "--trainer.max_epochs", "2"]


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of everything in a folder."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}
