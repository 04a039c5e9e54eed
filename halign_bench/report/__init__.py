"""Records as a folder of pages that opens from disk: tables, figures with values under the pointer, a gallery.

Data flow one way: `figures.source` reads records; `document` (tables), `configs`, `panels` (figures) and `clips` turn
them into plain data; `gallery` samples clips again and encodes them; `writing` puts everything into the folder at once.
"""
