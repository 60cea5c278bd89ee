"""Int8 model in (ONNX QDQ or TFLite); exact C, a memory plan, a TFLite twin and a firmware image out."""

import os

# The simulator's small matrix products are up to 20 times slower on two BLAS threads than on one when other processes run.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
