"""What people look at: every pipeline at a glance, and the story of each as a timeline; as pages and as JSON. Read-only.

`model` is what is shown, as frozen data, made by the pure functions of `overview` and `timeline` from what `gather` has asked for;
`render` makes pages of it, and `routes` answers requests. What is away is said to be away: a page is never an error because a part is.
"""
