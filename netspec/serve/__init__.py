"""`netspec serve`: a trained net behind the Open Inference Protocol v2, with a page to play with.

`tensors` and `protocol` read and write requests, `subject` computes answers, `batching` joins requests, `guard` keeps
other pages and hosts out, `app` puts them together. Only `app`, `guard` and `server` need the extra `serve`.
"""
