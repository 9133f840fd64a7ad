"""Indices and grades: what a reading means by the standards that a city reports by.

Pure functions over tables; the tables are TOML files in ``tables/``, each with its source and with what in it is not
verified. A module a subject: ``air`` (three indices), ``water`` (classes), ``noise`` (limits by zone), ``traffic``
(speed grades, congestion index, parking). ``tables`` reads the files.
"""
