"""What the speech-to-text engines share: the HTTP contract, its limits and its formats.

An engine supplies one object (`contract.engine.Engine`) that can find, fetch and load
models; `app.create_app` turns it into the whole service. Nothing in this package
knows a particular engine, and all of it can be tested without a model.
"""

__version__ = "0.1.0"
