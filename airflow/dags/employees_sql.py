"""The SQL of the demo pipeline. A run owns its rows: loading it again replaces them."""

from __future__ import annotations

# No primary key on purpose: if a run were loaded twice, the table would show it.
CREATE = """
    CREATE TABLE IF NOT EXISTS employees (
        run_id TEXT NOT NULL, id INTEGER NOT NULL, name TEXT, email TEXT, department TEXT,
        salary NUMERIC, hired_on TEXT
    )
"""
DELETE_RUN = "DELETE FROM employees WHERE run_id = ?"
INSERT = """
    INSERT INTO employees (run_id, id, name, email, department, salary, hired_on)
    VALUES (:run_id, :id, :name, :email, :department, :salary, :hired_on)
"""
COUNT_RUN = "SELECT count(*) FROM employees WHERE run_id = ?"
