"""The messages of caffe.proto, under the module path that pycaffe gives them."""

from netspec.pycaffe.proto import caffe_pb2

__all__ = ["caffe_pb2"]
