"""Int8 model in (ONNX QDQ or TFLite); exact C, a memory plan, a TFLite twin and a firmware image out."""
