"""Breaks Airmedic's processes, connections, disk and clock, and judges by an Airflow of its own."""
