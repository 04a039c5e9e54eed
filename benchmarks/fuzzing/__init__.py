"""What `benchmarks/fuzz.py` is made of: mutations, guarded cases, and the parts of the harness that are attacked."""
