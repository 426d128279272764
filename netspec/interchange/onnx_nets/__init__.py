"""ONNX models as nets of Caffe."""
