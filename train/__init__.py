"""Data in, regularised float model out."""

import os

# Before torch is loaded: its threads otherwise spin while they wait for each other, and on a machine with other work that
# made a training up to ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
