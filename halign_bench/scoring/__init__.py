"""`halign-bench score`: published metrics on anybody's videos.

inputs     which files are scored, and with which reference, sound and picture each goes
footage    a file as a clip: decoded when first looked at, once, and held on disk
choices    the published extractors that there are, and what their weights are
cache      features and scores of single clips, kept by content
scorer     clip by clip: features, scores, totals
opening    a request as a process has it open
shards     a scoring in parts, on one machine or many
report     what is printed and written
"""
