"""One folder a method; this list is what exists. To add a method: its folder, its name here."""

NAMES = ("rtn", "svdquant", "lrq_dit", "dgq")
