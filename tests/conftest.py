"""For every test: one thread for torch. Tiny models gain nothing by a second, and wait for it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
