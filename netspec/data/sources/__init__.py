"""Sources of batches: what each kind of data layer reads."""
