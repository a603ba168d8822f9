"""Runs the command lines of a JSON file one after the other, on every rank of a torchrun."""

import json
import sys
from pathlib import Path

import torch

from lit_models.__main__ import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    for argv in json.loads(Path(sys.argv[1]).read_text()):
        if (code := main(argv)) != 0:
            sys.exit(code)
