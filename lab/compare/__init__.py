"""The comparison panel: how far recipes are from the full-precision model, and gates that prove the meter.

A `Bench` holds what all recipes share (conditions, noise, decoder, networks). `measure` takes one quantized
model through it and gives a `Part`, plain arrays and numbers; everything after that (`summary`, `orderings`,
`differences`) reads parts only, so that parts made by several processes can be put together.
"""
