"""Faults played into a real Airflow, and the Airflow they are played into."""
