"""Recipes side by side on one model: how far each is from full precision, and a gate that proves the meter.

A `Bench` holds what all recipes share (conditions, noise, decoder, networks). `measure` takes one quantized
model through it and gives a `Measured`, plain arrays and numbers, which lies on disk at once; tables and
verdicts read these only, so several processes can share the work.
"""
