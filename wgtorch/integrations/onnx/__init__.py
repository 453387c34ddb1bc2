"""Embedders and describers by ONNX Runtime (https://onnxruntime.ai): exported once, run without their PyTorch modules."""
