"""One torch thread, and jaxtyping + beartype on every annotation of the package."""

import os

from jaxtyping import install_import_hook

if os.environ.get("HHAT_TYPECHECK", "1") == "1":
    install_import_hook("hhat", "beartype.beartype")

import torch

torch.set_num_threads(1)
