"""What developers run; each file says how."""
