"""OGC SensorThings 1.1, read only: the city's sensors and readings for clients that speak the standard.

``entities`` says what a Thing or a Datastream is here, ``expressions`` reads ``$filter`` and ``$orderby``, ``options``
the other query options, and ``answers`` puts an answer together.
"""
