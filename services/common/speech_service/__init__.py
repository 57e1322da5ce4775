"""What the speech-to-text engines share: all of a service but the models.

An engine supplies one object (`contract.engine.Engine`) that can find, fetch and load models;
`app.create_app` turns it into the whole service. Nothing in this package knows a particular engine,
and all of it can be tested without a model.

Rooms, from the roof down; each knows only those below it: `app`, `routes`, `http`, `work`, `media`,
`contract`, `process`.
"""

__version__ = "0.1.0"
