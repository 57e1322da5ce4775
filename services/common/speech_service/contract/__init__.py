"""What an engine and its clients may rely on: values, errors, settings, and the engine's protocol.

Pure but for `settings`, which reads the environment. Knows no other room.
"""
