"""The process around a service: its imports, log and health; standard library only."""
