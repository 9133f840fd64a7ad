"""The example is a project of its own: its tests run in a pytest of their own, as a site would run them."""

collect_ignore = ["example"]
