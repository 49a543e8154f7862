"""What a test's build runs in the place of `python -m mma_edge.engines.tensorrt.child`: the same, on the fakes."""

from __future__ import annotations

import sys

from fake_gpu import install

if __name__ == "__main__":
    install()
    from mma_edge.child import serve
    from mma_edge.engines.tensorrt.child import build

    sys.exit(serve(build))
