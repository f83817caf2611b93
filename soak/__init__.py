"""The soak: an office in the lab where something goes wrong every few seconds.

`python -m soak` (or ``make soak``) runs one master, eight workers and three groups, on
each of which one analysis follows the other.  What goes wrong is a story, made from a
seed (`soak.story`); `soak.stage` does it, and `soak.watch` looks from outside, all the
time, whether what must hold holds.
"""
