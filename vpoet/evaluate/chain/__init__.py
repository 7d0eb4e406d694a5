"""From a folder of clips to a model in given hours: what is done, in which sizes and steps, and how long it takes."""
