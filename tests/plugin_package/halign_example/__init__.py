"""A third party's plug-ins for halign-bench."""
