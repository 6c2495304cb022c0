"""`perennial report`: the last days of a pipeline as one page that needs nothing else.

`model` holds what is shown, `gather` asks for it, `charts` draws with matplotlib, `page` puts all into `report.html.j2`.
"""
