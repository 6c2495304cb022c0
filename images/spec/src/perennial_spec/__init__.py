"""The pipeline specification and the contracts between Perennial's parts.

Imports nothing else of Perennial, and only pydantic and PyYAML beside the standard library, so that a DAG file, a step and the
model server can all read a spec in milliseconds.
"""
