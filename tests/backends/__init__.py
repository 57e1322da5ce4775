"""What a backend must do, and that each does."""
