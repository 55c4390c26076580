"""One folder a method; this list is what exists. To add a method: its folder, its name here."""

NAMES = ("rtn", "mixdq", "eda_dm", "svdquant", "lowbit_fp", "lrq_dit", "dgq")
