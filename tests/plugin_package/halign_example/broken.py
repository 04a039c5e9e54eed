"""A plug-in whose own dependency is missing; it also writes where a careless import would."""

print("noise on stdout")

import a_package_that_is_not_installed  # noqa: E402, F401
