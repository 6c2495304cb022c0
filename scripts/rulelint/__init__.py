"""A linter for the rules of Prometheus: what promtool does not check, and this project relies on. `python -m scripts.rulelint`.

promtool knows the syntax; this knows the names of our metrics, the contract of our alerts, and expressions that are valid and wrong.
(Cloudflare's pint does the like against a running Prometheus; it is a Go program, in neither Debian nor PyPI.)
"""
