"""One torch thread, and jaxtyping + beartype on every annotation of the package."""

import os

from tests import typecheck

if os.environ.get("HHAT_TYPECHECK", "1") == "1":
    typecheck.install("hhat")

import torch

torch.set_num_threads(1)
