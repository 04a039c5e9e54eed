"""`halign-bench fitness`: is a metric any good here? Each is tested on clips that were spoilt by a known amount.

spoiling   pictures and sound spoilt by a known amount: pure functions of arrays
damages    kinds of damage with their levels, and which metric each should move which way
measuring  every metric over the same clips at each level
rule       what is called fit
folder     clips to spoil from a folder of videos
report     what is printed and written
commands   the command
"""
