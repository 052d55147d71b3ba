"""For every test: one thread for torch, and Triton kernels without a GPU."""

import os

# Tiny models gain nothing by a second thread, and wait for it. A test that asks for two lets them
# sleep while they wait, instead of taking a core from those who work.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined
