"""Studies of the methods that train: what their pieces add, video, bit-widths of the brain's decoder."""
