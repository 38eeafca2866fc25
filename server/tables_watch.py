"""What the watch found."""
