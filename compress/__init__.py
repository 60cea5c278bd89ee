"""Float model in, int8 ONNX (QDQ) model out: pruning, distillation, batch-norm folding, quantization."""
