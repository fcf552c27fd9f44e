"""The demonstration node: what `./demo` runs once its Python environment is there, and the guest disk that tests boot too.

A composition root of its own beside `panal`, outside its layers and its wheel: it installs nothing into the product and
nothing there imports it.
"""
