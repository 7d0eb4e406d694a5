"""A platform game that plays itself."""
