"""The defects that the audit of the science found: a figure before, a figure now, on the easy and on the hard simulation.

``python -m benchmarks.audit -o docs/benchmarks/audit.md --folder FOLDER`` measures all twelve. Figures before are the
audit's own.
"""
