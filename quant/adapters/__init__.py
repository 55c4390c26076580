"""Methods that add to a model instead of quantizing it; `quant.registry.ADAPTERS` lists them."""
