"""The routes: one module per family of clients, with its form, its options and its writer.

They may use all rooms below; they do not know each other.
"""
