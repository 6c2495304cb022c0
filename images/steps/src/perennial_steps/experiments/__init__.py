"""Experiments on live traffic: what came of the answers, by version, and what it proves."""
