"""The shared service, room by room."""
