"""The Grafana dashboards, as code: each says what it shows, and `make render` writes the JSON that Grafana reads.

overview, pipeline, loop, platform   one dashboard each
panels                               what a dashboard is made of: data, without a word of Grafana's JSON
expressions                          the PromQL that several panels share
grafana                              panels to JSON, with Grafana's own types
"""
