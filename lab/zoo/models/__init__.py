"""The small models that ship with the project, as diffusers-style modules."""
