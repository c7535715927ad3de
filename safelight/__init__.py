"""Image and video pipelines that can be trusted to finish: the library underneath."""

import os

# Intel's matrix routines, which torch draws with on a CPU, else add up in an order that depends on
# where in memory a tensor lies: the same seed would give other bytes now and then.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
