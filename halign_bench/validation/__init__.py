"""Is a record what it says it is? Checks for records that others add to `leaderboards/`, on what lies in the files.

`reading` reads one, `document` looks at it by itself, `companions` at the parquet files beside it, `together` at
several. None of it can prove that a measurement took place; it finds what was broken, edited, mixed up or copied.
"""
