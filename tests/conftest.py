"""For every test: one thread for torch. Tiny models gain nothing by a second, and wait for it.

A test that asks for two sleeps while it waits, instead of taking a core from those who work.
"""

import os

# Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
