"""The wire in motion: clients, services, and the bytes between them."""
