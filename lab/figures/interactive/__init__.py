"""Figures that answer a slider, for the app and the widgets."""
