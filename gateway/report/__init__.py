"""``citygate report``: a recording, played through decode and filter, as one page for people.

Nothing is sent or stored anywhere but on that page; the way of a reading is the gateway's own, without broker and
spool.
"""
