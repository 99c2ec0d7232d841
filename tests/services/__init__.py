"""Real servers for the tests: each started on a free port of this machine and ended with them."""
