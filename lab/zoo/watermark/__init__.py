"""The shipped watermark of the shipped autoencoder: its files, and the decoder as training needs it."""
