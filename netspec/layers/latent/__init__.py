"""Layers of deep latent-variable models, of imputation, and of the generative nets beside them.

Layout: where a row of the data has K draws, a blob holds (K n, ...) with the first draw of all n rows first
(K-major), and what is one number for each draw has shape (K, n). Log densities are in nats. NaN in data
means missing.
"""
