"""Notices on their way to people, and the audit trail."""
