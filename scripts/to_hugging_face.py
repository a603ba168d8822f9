"""Writes a trained LitGPT or LitBERT as a folder that `transformers` loads.

``python -m scripts.to_hugging_face runs/gpt/ID/checkpoints/best.ckpt FOLDER``
"""

import argparse
import sys
from pathlib import Path

import lightning as L

import lit_models
from datamodules.errors import InputError
from datamodules.files.tokenization import load_tokenizer
from lit_models.weights.checkpoints import read_checkpoint
from lit_models.weights.hugging_face import save_pretrained


def export(checkpoint: Path, folder: Path) -> None:
    """Writes weights, configuration and, where the checkpoint holds it, the vocabulary.

    Raises:
        InputError: If the checkpoint cannot be read.
        ValueError: If Hugging Face has no class that computes the same.
    """
    read_checkpoint(checkpoint)
    for name in ("LitGPT", "LitBERT"):
        getattr(lit_models, name)  # loading looks among imported classes
    model = L.LightningModule.load_from_checkpoint(
        checkpoint, map_location="cpu", weights_only=True
    )
    if not isinstance(model, lit_models.LitGPT | lit_models.LitBERT):
        raise InputError(f"{checkpoint} holds a {type(model).__name__}, not a LitGPT or LitBERT")
    save_pretrained(model.net, folder)
    try:
        load_tokenizer(str(checkpoint)).save(str(folder / "tokenizer.json"))
    except InputError:
        sys.stderr.write(f"{checkpoint} holds no vocabulary; {folder} has none\n")


def main() -> int:
    """Reads the command line; 0, or 2 after a mistake in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    try:
        export(args.checkpoint, args.folder)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
