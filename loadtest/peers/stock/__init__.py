"""The clients that people have, each before a mesh of the demo models, by the same scenarios. `just clients`.

Each is installed as it is shipped, into an environment of its own, the first time that it is wanted. What is
not to be had here is told, with the reason.
"""
