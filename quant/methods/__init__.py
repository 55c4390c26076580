"""One folder per published method; `quant.registry.NAMES` lists them."""
