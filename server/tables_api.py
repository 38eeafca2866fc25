"""What people said of incidents, and what the API searches."""
